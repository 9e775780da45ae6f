"""Reserve and deduct on the memory store: pairs per second on one core.

Beside it the time of building the same two results with no logic at all, in the same run and in turns, so that a slow
moment of the machine hits both: what is left over is what the rules cost. Run it with `python -m benchmarks.memory`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime

from ducto.models import DeductionResult, ReserveResult
from ducto.stores.memory import MemoryStore

__all__ = ["AIM_PAIRS_PER_SECOND", "main", "measure"]

ROUNDS = 15
PAIRS_PER_ROUND = 1_000
AIM_PAIRS_PER_SECOND = 30_000


async def _pairs(store: MemoryStore, first: int) -> None:
    """Each call as a gateway makes it: with a key, a model, and the version of its price."""
    for number in range(first, first + PAIRS_PER_ROUND):
        held = await store.reserve_credits(
            "ann", 100, "chat", min_balance=0, idempotency_key=f"call-{number}", model="gpt-4o", pricing_version="1"
        )
        settled = await store.deduct_credits("ann", str(held.reservation_id), 60)
        assert settled.error is None


async def _results() -> None:
    """The same two results, built from ready values."""
    expires_at = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(PAIRS_PER_ROUND):
        ReserveResult(
            reservation_id="rsv_uYW5u.1",
            user_id="ann",
            team_id=None,
            amount=100,
            held=100,
            balance=1_000_000,
            available=999_900,
            state="active",
            expires_at=expires_at,
            plan_id=None,
            pricing_version="1",
            cap_warning=None,
            cap_notices=(),
        )
        DeductionResult(
            transaction_id="txn_uYW5u.1",
            reservation_id="rsv_uYW5u.1",
            user_id="ann",
            team_id=None,
            amount=60,
            actual=60,
            allowance_consumed=0,
            unbilled=0,
            overage=0,
            balance_after=999_940,
            available=999_940,
            late=False,
            suspect=False,
        )


def measure() -> dict[str, float]:
    """Microseconds per pair, by name: the median of `ROUNDS` rounds in turns. `ratio` is the first by the second."""
    store = MemoryStore()
    times: dict[str, list[float]] = {"reserve and deduct": [], "two results alone": []}
    with asyncio.Runner() as runner:
        runner.run(store.add_credits("ann", 10**12))
        for number in range(ROUNDS):
            first = number * PAIRS_PER_ROUND
            for name, call in (("reserve and deduct", _pairs(store, first)), ("two results alone", _results())):
                begin = time.perf_counter()
                runner.run(call)
                times[name].append((time.perf_counter() - begin) / PAIRS_PER_ROUND)
    medians = {name: statistics.median(taken) * 1e6 for name, taken in times.items()}
    return {**medians, "ratio": medians["reserve and deduct"] / medians["two results alone"]}


def main() -> None:
    """Print pairs per second beside the aim, and beside the peer."""
    times = measure()
    print(f"{'memory store, one core':<28}{'us':>9}{'per second':>13}{'aim':>10}")
    for name, aim in (("reserve and deduct", f"{AIM_PAIRS_PER_SECOND:,}"), ("two results alone", "")):
        print(f"{name:<28}{times[name]:>9.1f}{1e6 / times[name]:>13,.0f}{aim:>10}")
    print(f"the rules take {times['ratio']:.1f} times the building of their two results")


if __name__ == "__main__":
    main()
