"""Asks LiteLLM's own cost calculation. Run by the Python of LiteLLM's environment, without ducto.

It reads a JSON list of `[model, provider, service tier, counts]` and writes the costs in dollars as a JSON list.
"""

import json
import logging
import sys

from litellm import cost_per_token
from litellm.litellm_core_utils.llm_cost_calc.tool_call_cost_tracking import StandardBuiltInToolCostTracking
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import (
    CacheCreationTokenDetails,
    CompletionTokensDetailsWrapper,
    PromptTokensDetailsWrapper,
    ServerToolUse,
    Usage,
)


def cost(model, provider, service_tier, counts):
    short, hour = counts.get("cache_write_tokens", 0), counts.get("cache_write_1h_tokens", 0)
    written = CacheCreationTokenDetails(ephemeral_5m_input_tokens=short, ephemeral_1h_input_tokens=hour)
    usage = Usage(
        prompt_tokens=counts["prompt"],
        completion_tokens=counts["completion"],
        total_tokens=counts["prompt"] + counts["completion"],
        prompt_tokens_details=PromptTokensDetailsWrapper(
            text_tokens=counts.get("input_tokens", 0),
            cached_tokens=counts.get("cache_read_tokens", 0),
            audio_tokens=counts.get("input_audio_tokens", 0),
            cache_creation_tokens=short + hour,
            cache_creation_token_details=written if short + hour else None,
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            text_tokens=counts.get("output_tokens", 0),
            reasoning_tokens=counts.get("reasoning_tokens", 0),
            audio_tokens=counts.get("output_audio_tokens", 0),
        ),
    )
    searches = counts.get("search_queries", counts.get("web_search_calls", 0))
    tokens = cost_per_token(model=model, custom_llm_provider=provider, usage_object=usage, service_tier=service_tier)
    return sum(tokens) + cost_of_searches(model, provider, searches)


def cost_of_searches(model, provider, searches):
    """Told in the usage as Anthropic and Google do, and as items of the answer, as OpenAI does."""
    if not searches:
        return 0.0
    usage = Usage(prompt_tokens_details=PromptTokensDetailsWrapper(web_search_requests=searches))
    usage.server_tool_use = ServerToolUse(web_search_requests=searches)
    answer = ResponsesAPIResponse.model_construct(output=[{"type": "web_search_call"}] * searches)
    return StandardBuiltInToolCostTracking.get_cost_for_built_in_tools(
        model, answer, usage=usage, custom_llm_provider=provider
    )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answer = json.dumps([cost(*call) for call in json.load(sys.stdin)])
    sys.stdout.write(f"\n{answer}\n")
