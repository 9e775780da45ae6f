"""Time of pricing one call: ducto by rate table and by expression, against `genai-prices` and `tokencost`.

All four run in the same process, in turns, so that a slow moment of the machine hits each of them; the
best round of each counts. tokencost is asked by token counts, without counting tokens in a text.

Run it with `python -m benchmarks.pricing`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from decimal import Decimal

from ducto.pricing import PricingEngine, parse_pricing
from ducto.usage import UsageMetrics

ROUNDS = 15
SECONDS_PER_ROUND = 0.02

#: What a call may cost us, in microseconds, and how many times faster than the others we mean to be.
AIM_TABLE_US = 5.0
AIM_EXPRESSION_US = 8.0
AIM_RATIO = 10.0

INPUT, CACHED, OUTPUT = 1_000, 500, 300
EXPECTED_CREDITS = 6_125


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
        "ducto table": lambda: engine.calculate(by_table),
        "ducto expression": lambda: engine.calculate(by_expression),
    }


def _others() -> dict[str, Callable[[], object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        import genai_prices
        import tokencost

        logging.disable(logging.NOTSET)
    usage = genai_prices.Usage(input_tokens=INPUT + CACHED, cache_read_tokens=CACHED, output_tokens=OUTPUT)

    def by_tokencost() -> Decimal:
        return (
            tokencost.calculate_cost_by_tokens(INPUT, "gpt-4o", "input")
            + tokencost.calculate_cost_by_tokens(CACHED, "gpt-4o", "cached")
            + tokencost.calculate_cost_by_tokens(OUTPUT, "gpt-4o", "output")
        )

    return {
        "genai-prices": lambda: genai_prices.calc_price(usage, "gpt-4o", provider_id="openai"),
        "tokencost": by_tokencost,
    }


def _round(call: Callable[[], object]) -> float:
    """Seconds per call over one round."""
    calls = 0
    begin = time.perf_counter()
    end = begin
    while end - begin < SECONDS_PER_ROUND:
        for _ in range(20):
            call()
        calls += 20
        end = time.perf_counter()
    return (end - begin) / calls


def measure() -> dict[str, float]:
    """Microseconds per call, by name; the best of `ROUNDS` interleaved rounds."""
    calls = {**_ducto(), **_others()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            best[name] = min(best[name], _round(call))
    return {name: seconds * 1e6 for name, seconds in best.items()}


def main() -> None:
    """Print the table."""
    times = measure()
    aims = {"ducto table": AIM_TABLE_US, "ducto expression": AIM_EXPRESSION_US}
    print(f"{'pricing one call':<20}{'us':>9}{'aim':>9}{'x genai-prices':>17}{'x tokencost':>14}")
    for name, microseconds in times.items():
        aim = f"{aims[name]:.1f}" if name in aims else ""
        ratios = [f"{times[other] / microseconds:.1f}" for other in ("genai-prices", "tokencost")]
        print(f"{name:<20}{microseconds:>9.2f}{aim:>9}{ratios[0]:>17}{ratios[1]:>14}")
    print(f"aim: ducto at least {AIM_RATIO:.0f} times faster than either")


if __name__ == "__main__":
    main()
