"""Reserve and deduct on the memory store: pairs per second on one core.

Beside it the time of building the same two results with no logic at all, by their constructors as any caller builds
them, in the same run and in turns, so that a slow moment of the machine hits both: what is left over is what the rules
cost. The time is that of the processor, for nothing waits here.

Run it with `python -m benchmarks.memory`.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from benchmarks.figures import Effort, Section, about, compare, figure, run_alone
from ducto.models import DeductionResult, ReserveResult
from ducto.stores.memory import MemoryStore

__all__ = ["AIM_PAIRS_PER_SECOND", "AIM_RATIO", "main", "measure"]

ROUNDS = 15
PAIRS_PER_ROUND = 1_000
AIM_PAIRS_PER_SECOND = 40_000
AIM_RATIO = 4.0


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


def measure(effort: Effort) -> Section:
    """Microseconds per pair, and of the two results alone, in turns."""
    store = MemoryStore()
    pairs: list[float] = []
    results: list[float] = []
    with asyncio.Runner() as runner:
        runner.run(store.add_credits("ann", 10**12))
        for number in range(2 if effort.quick else ROUNDS):
            first = number * PAIRS_PER_ROUND
            for taken, call in ((pairs, _pairs(store, first)), (results, _results())):
                begin = time.process_time()
                runner.run(call)
                taken.append((time.process_time() - begin) / PAIRS_PER_ROUND * 1e6)
    ours = figure("a pair", pairs, unit="µs")
    peer = figure("the two results alone", results, unit="µs")
    per_second = figure("pairs", [1e6 / each for each in pairs], unit="/s")
    return Section(
        "Memory store",
        about(__doc__),
        [
            compare("MemoryStore, reserve + deduct", ours, peer, aim=AIM_RATIO, better="lower", paired=True),
            compare("MemoryStore, pairs a second", per_second, aim=AIM_PAIRS_PER_SECOND, better="higher"),
        ],
    )


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
