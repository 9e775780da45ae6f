"""Time of pricing one call: ducto by rate table and by expression, against genai-prices, LiteLLM and tokencost.

All price the same call of gpt-4o with input, cached input and output, and their prices are checked to be the same. They
take turns, so that a slow moment of the machine hits each of them. LiteLLM's `completion_cost` runs in a process with
an environment of its own, because its pins clash with those of others, and times itself there.

tokencost is asked by counts, one bucket at a time, without counting the tokens of a text. That is one look-up in a
table by the exact name and one product for each bucket: no aliases, tiers, variants, plans or extras to look at, and no
breakdown that says what was charged for what.

Run it with `python -m benchmarks.pricing`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from benchmarks.figures import Effort, Section, about, compare, figure, run_alone
from ducto.pricing import PricingEngine, parse_pricing
from ducto.testing.servers.litellm import litellm_python
from ducto.usage import UsageMetrics

__all__ = ["AIM_RATIO", "AIM_US", "main", "measure"]

ROUNDS = 15
SECONDS_PER_ROUND = 0.02

#: What a call may cost us, in microseconds, and how many times faster than each of the others we mean to be.
AIM_US = 5.0
AIM_RATIO = 20.0

INPUT, CACHED, OUTPUT = 1_000, 500, 300
EXPECTED_CREDITS = 6_125
EXPECTED_DOLLARS = Decimal("0.006125")

Timer = Callable[[float], float]


def _ducto() -> dict[str, Callable[[], object]]:
    engine = PricingEngine(
        parse_pricing(
            {
                "models": {
                    "gpt-4o": {"unit": "usd", "input": "2.5", "cache_read": "1.25", "output": 10},
                    "by-expression": "input_tokens * 2.5 + cache_read_tokens * 1.25 + output_tokens * 10",
                }
            }
        )
    )
    used = {"input_tokens": INPUT, "cache_read_tokens": CACHED, "output_tokens": OUTPUT}
    by_table = UsageMetrics(model="gpt-4o", **used)
    by_expression = UsageMetrics(model="by-expression", **used)
    for metrics in (by_table, by_expression):
        assert engine.calculate(metrics).total == EXPECTED_CREDITS
    return {
        "by rate table": lambda: engine.calculate(by_table),
        "by expression": lambda: engine.calculate(by_expression),
    }


def _others() -> dict[str, Callable[[], object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        import genai_prices
        import tokencost  # type: ignore[import-untyped]

        logging.disable(logging.NOTSET)
    usage = genai_prices.Usage(input_tokens=INPUT + CACHED, cache_read_tokens=CACHED, output_tokens=OUTPUT)

    def by_tokencost() -> Decimal:
        cost: Decimal = (
            tokencost.calculate_cost_by_tokens(INPUT, "gpt-4o", "input")
            + tokencost.calculate_cost_by_tokens(CACHED, "gpt-4o", "cached")
            + tokencost.calculate_cost_by_tokens(OUTPUT, "gpt-4o", "output")
        )
        return cost

    assert genai_prices.calc_price(usage, "gpt-4o", provider_id="openai").total_price == EXPECTED_DOLLARS
    assert by_tokencost() == EXPECTED_DOLLARS
    return {
        "genai-prices": lambda: genai_prices.calc_price(usage, "gpt-4o", provider_id="openai"),
        "tokencost, by counts": by_tokencost,
    }


def _timer(call: Callable[[], object]) -> Timer:
    def seconds_per_call(seconds: float) -> float:
        calls = 0
        begin = end = time.perf_counter()
        while end - begin < seconds:
            for _ in range(20):
                call()
            calls += 20
            end = time.perf_counter()
        return (end - begin) / calls

    return seconds_per_call


@contextmanager
def _litellm() -> Iterator[Timer]:
    """`litellm.completion_cost` in its own process, which times itself when asked."""
    script = Path(__file__).with_name("litellm_pricing.py")
    call = [str(each) for each in (litellm_python(), script, INPUT + CACHED, CACHED, OUTPUT, EXPECTED_DOLLARS)]
    # Else it fetches its price list from the net. Our own packages must not be found in its environment.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        asked, told = child.stdin, child.stdout
        while (line := told.readline()) != "ready\n":
            if not line:
                raise SystemExit("LiteLLM could not price the call; run benchmarks/litellm_pricing.py by hand.")

        def seconds_per_call(seconds: float) -> float:
            asked.write(f"{seconds}\n")
            asked.flush()
            return float(told.readline())

        yield seconds_per_call
        asked.close()


def measure(effort: Effort) -> Section:
    """Microseconds per call, in turns."""
    timers = {name: _timer(call) for name, call in {**_ducto(), **_others()}.items()}
    times: dict[str, list[float]] = {}
    with _litellm() as by_litellm:
        timers["litellm.completion_cost"] = by_litellm
        for _ in range(2 if effort.quick else ROUNDS):
            for name, seconds_per_call in timers.items():
                times.setdefault(name, []).append(seconds_per_call(SECONDS_PER_ROUND) * 1e6)
    figures = {name: figure(name, taken, unit="µs") for name, taken in times.items()}
    ours = figures.pop("by rate table")
    by_expression = figures.pop("by expression")
    compared = [compare("price a call", ours, aim=AIM_US, better="lower")]
    compared += [
        compare("price a call", ours, peer, aim=AIM_RATIO, better="higher", times_faster=True, paired=True)
        for peer in figures.values()
    ]
    return Section("Pricing", about(__doc__), compared, [by_expression])


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
