"""Times `litellm.completion_cost`. Run by the Python of LiteLLM's own environment, without ducto: its pins clash.

Started with input tokens (cached ones among them), cached tokens, output tokens and the expected cost in dollars. For
each line of seconds that it reads, it prices the same call that long and writes the seconds per call.
"""

import logging
import sys
import time

import litellm
from litellm.types.utils import PromptTokensDetailsWrapper, Usage


def answer(input_tokens, cached_tokens, output_tokens):
    """What the provider answered, as LiteLLM's callbacks are given it."""
    usage = Usage(
        prompt_tokens=input_tokens,
        completion_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=cached_tokens),
    )
    return litellm.ModelResponse(model="gpt-4o", usage=usage)


def seconds_per_call(response, seconds):
    calls = 0
    begin = end = time.perf_counter()
    while end - begin < seconds:
        for _ in range(20):
            litellm.completion_cost(completion_response=response)
        calls += 20
        end = time.perf_counter()
    return (end - begin) / calls


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    priced = answer(*map(int, sys.argv[1:4]))
    cost = litellm.completion_cost(completion_response=priced)
    assert abs(cost - float(sys.argv[4])) < 1e-9, cost
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{seconds_per_call(priced, float(line))}\n")
        sys.stdout.flush()
