"""What the settle journal costs: CPU per settle with it and without, and how many settles share an `fsync`.

The store is one that answers at once, so that all time is the manager's and the journal's. Beside it a bare loop that
writes the same bytes, with an `fsync` for each record and with one for a group of as many as there are callers: nothing
that lasts can be quicker than that on this disk. All in turns, so that a slow moment of the machine hits them alike.

Run it with `python -m benchmarks.journal`; TMPDIR names a folder on the disk that is to be measured.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from ducto.journal import SettleJournal, segment
from ducto.manager import CreditManager
from ducto.models import DeductionResult, ReserveResult
from ducto.stores.memory import MemoryStore

__all__ = ["CALLERS", "main", "measure"]

CALLERS = (1, 16, 256)
ROUNDS = 7
SETTLES_PER_ROUND = 1_024
USERS = 16
AIM_LONE_RATIO = 3.0
AIM_SETTLES_PER_FSYNC = 16.0


class InstantStore(MemoryStore):
    """Answers with ready results; said to last, so that it has a journal."""

    durable = True
    _held = ReserveResult(reservation_id="rsv_uYW5u.1", user_id="ann", amount=100, held=100, state="active")
    _settled = DeductionResult(transaction_id="txn_uYW5u.1", reservation_id="rsv_uYW5u.1", amount=60, actual=60)

    @property
    def books_name(self) -> str | None:
        return "benchmark"

    async def reserve_credits(self, *_: Any, **__: Any) -> ReserveResult:
        return self._held

    async def deduct_credits(self, *_: Any, **__: Any) -> DeductionResult:
        return self._settled


class _Samples(NamedTuple):
    """One round: of a settle the CPU and the time in microseconds, without and with the journal; settles for each
    `fsync`; and the time of a record in the bare loops.
    """

    cpu_without: float
    cpu_with: float
    time_without: float
    time_with: float
    settles_per_fsync: float
    bare_one_each: float
    bare_in_groups: float


async def _settle(manager: CreditManager, callers: int) -> None:
    async def caller(number: int) -> None:
        for _ in range(SETTLES_PER_ROUND // callers):
            await manager.deduct(f"user-{number % USERS}", 60, reservation_id="rsv_uYW5u.1", model="gpt-4o")

    await asyncio.gather(*(caller(number) for number in range(callers)))


def _bare(folder: Path, record: bytes, *, group: int) -> float:
    """Microseconds for each record of a loop that writes and waits for the disk."""
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    try:
        begin = time.perf_counter()
        for _ in range(SETTLES_PER_ROUND // group):
            os.write(descriptor, record * group)
            os.fsync(descriptor)
        return (time.perf_counter() - begin) / SETTLES_PER_ROUND * 1e6
    finally:
        os.close(descriptor)


class _CountedSyncs:
    """`os` of the journal's segments, with the calls of `fsync` counted."""

    def __init__(self) -> None:
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        self.count += 1
        os.fsync(descriptor)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """CPU of the process (its journal's thread included) and time, in microseconds for each settle."""
    cpu, begin = time.process_time(), time.perf_counter()
    work()
    return (
        (time.process_time() - cpu) / SETTLES_PER_ROUND * 1e6,
        (time.perf_counter() - begin) / SETTLES_PER_ROUND * 1e6,
    )


def _rounds(folder: Path, callers: int, rounds: int) -> list[_Samples]:
    record = b"x" * 150  # as long as the record of such a settle
    syncs = _CountedSyncs()
    segment.os = syncs  # type: ignore[assignment]
    taken: list[_Samples] = []
    try:
        with asyncio.Runner() as runner:
            store = InstantStore()
            plain = CreditManager(store, maintain_every_seconds=None, journal=None)
            journaled = CreditManager(store, maintain_every_seconds=None, journal=SettleJournal(folder))
            for manager in (plain, journaled):
                runner.run(_settle(manager, callers))
            for _ in range(rounds):
                without = _timed(lambda: runner.run(_settle(plain, callers)))
                before = syncs.count
                with_it = _timed(lambda: runner.run(_settle(journaled, callers)))
                shared = SETTLES_PER_ROUND / max(1, syncs.count - before)
                one_each, grouped = _bare(folder, record, group=1), _bare(folder, record, group=callers)
                taken.append(_Samples(without[0], with_it[0], without[1], with_it[1], shared, one_each, grouped))
            runner.run(plain.aclose())
            runner.run(journaled.aclose())
    finally:
        segment.os = os
    return taken


def measure(effort: Effort) -> Section:
    """By the number of callers, each beside the bare loops."""
    comparisons: list[Comparison] = []
    figures: list[Figure] = []
    for callers in CALLERS:
        with tempfile.TemporaryDirectory(prefix="ducto-journal-") as folder:
            rounds = _rounds(Path(folder), callers, 2 if effort.quick else ROUNDS)
        named = f"{callers} caller{'s' if callers > 1 else ''}"
        by_name = {
            name: figure(f"{named}: {label}", [getattr(each, name) for each in rounds], unit=unit)
            for name, label, unit in (
                ("cpu_without", "CPU of a settle without the journal", "µs"),
                ("cpu_with", "CPU of a settle with it", "µs"),
                ("time_with", "a settle with it", "µs"),
                ("bare_one_each", "bare loop, an fsync for each record", "µs"),
                ("bare_in_groups", f"bare loop, an fsync for {callers} records", "µs"),
                ("settles_per_fsync", "settles for each fsync", ""),
            )
        }
        if callers == CALLERS[0]:
            comparisons.append(
                compare(
                    "a lone settle with the journal, on an instant store",
                    by_name["time_with"],
                    by_name["bare_one_each"],
                    aim=AIM_LONE_RATIO,
                    better="lower",
                    paired=True,
                )
            )
        if callers == CALLERS[-1]:
            comparisons.append(
                compare(
                    f"settles for each fsync, {named}",
                    by_name["settles_per_fsync"],
                    aim=AIM_SETTLES_PER_FSYNC,
                    better="higher",
                )
            )
        figures += by_name.values()
    return Section("Settle journal", about(__doc__), comparisons, figures)


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
