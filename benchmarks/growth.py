"""Does reserve and deduct take longer when there is more of everything? Ledger rows, accounts, pricing versions.

For each store one that is nearly empty, and beside it one that has grown in one respect. All of them are called in
turns, by the same hundred accounts, so that a slow moment of the machine hits each of them; what is told is the time of
a reserve and a deduct on the grown one by that on the small one. Memory stores are each in a process of their own, so
that the garbage collector of one does not walk through the objects of another. The Postgres databases are on one
server that syncs its commits, with 64 callers at a time.

Run it with `python -m benchmarks.growth`; `--large` takes ten million ledger rows and a million accounts: minutes, and
some 16 GB of memory and disk.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import asyncpg  # type: ignore[import-untyped]

from benchmarks.figures import Comparison, Effort, Section, about, compare, figure, run_alone
from benchmarks.postgres import bench_database, callers, fill, warm
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database

__all__ = ["AIM_RATIO", "main", "measure"]

#: How much longer reserve and deduct may take on the grown store.
AIM_RATIO = 1.2
ROUNDS = 21
CALLING_ACCOUNTS = 100
PAIRS_PER_ROUND = 2_000
CALLERS = 64
PRICING = {"models": {"gpt-4o": {"unit": "usd", "input": "2.50", "output": "10"}}}


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is, beside the accounts that call and what their calls write."""

    rows: int = 1_000
    accounts: int = 0
    versions: int = 1


@dataclass(frozen=True, slots=True)
class Grown:
    """One respect in which a store has grown."""

    what: str
    size: Size


def grown(effort: Effort) -> list[Grown]:
    """What is compared with `Size()`."""
    rows, accounts = (10_000, 1_000) if effort.quick else (10_000_000, 1_000_000) if effort.large else (10**6, 10**5)
    versions = 10 if effort.quick else 1_000
    return [
        Grown(f"{rows:,} ledger rows", Size(rows=rows)),
        Grown(f"{accounts:,} accounts", Size(accounts=accounts)),
        Grown(f"{versions:,} pricing versions", Size(versions=versions)),
    ]


async def _publish(store: CreditStore, versions: int) -> str:
    for number in range(1, versions):
        await store.set_active_pricing(PRICING, f"version {number}")
    return await store.set_active_pricing(PRICING)


# Memory


async def _serve_memory(size: Size, asked: Connection) -> None:
    """Fill a store, then run a round whenever asked and tell the microseconds of a pair."""
    async with MemoryStore() as store:
        for number in range(CALLING_ACCOUNTS):
            await store.add_credits(f"user{number}", 10**12)
        for number in range(size.accounts):
            await store.add_credits(f"bulk{number}", 100)
        for number in range(size.rows):
            await store.charge_credits(f"user{number % CALLING_ACCOUNTS}", 1)
        version = await _publish(store, size.versions)
        numbers = itertools.count()
        asked.send(None)
        while asked.recv():
            begun = time.process_time()  # All that a pair does is compute.
            for number in itertools.islice(numbers, PAIRS_PER_ROUND):
                user = f"user{number % CALLING_ACCOUNTS}"
                held = await store.reserve_credits(
                    user, 50, "chat", min_balance=0, idempotency_key=f"call-{number}", pricing_version=version
                )
                assert held.reservation_id is not None, held
                await store.deduct_credits(user, held.reservation_id, 30)
            asked.send((time.process_time() - begun) / PAIRS_PER_ROUND * 1e6)


def _run_memory(size: Size, asked: Connection) -> None:
    asyncio.run(_serve_memory(size, asked))


@contextmanager
def _memory_store(size: Size) -> Iterator[Connection]:
    """A store in a process of its own: send `True` for a round."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_run_memory, args=(size, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield ours
        ours.send(False)
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _measure_memory(larger: list[Grown], *, rounds: int) -> list[Comparison]:
    compared = []
    for each in larger:  # One at a time, for the sake of the memory they take.
        small: list[float] = []
        large: list[float] = []
        with _memory_store(Size()) as store, _memory_store(each.size) as full:
            for _ in range(rounds + 1):
                for asked, taken in ((store, small), (full, large)):
                    asked.send(True)
                    taken.append(asked.recv())
        compared.append(_compared("MemoryStore", each, small[1:], large[1:]))  # The first round warms up.
    return compared


# Postgres

#: Accounts that are copies of a real one.
_COPY_ACCOUNTS = """
INSERT INTO ducto.accounts ({columns}) SELECT {values}
FROM (SELECT * FROM ducto.accounts LIMIT 1) AS template, generate_series(1, $1::integer) AS number
"""
_ACCOUNT_COLUMNS = """
SELECT column_name::text FROM information_schema.columns
WHERE table_schema = 'ducto' AND table_name = 'accounts' AND is_generated = 'NEVER' ORDER BY ordinal_position
"""


async def _copy_accounts(database: Database, number: int) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        names = [row[0] for row in await connection.fetch(_ACCOUNT_COLUMNS)]
        values = ["'many' || number" if name == "account_id" else f'template."{name}"' for name in names]
        columns = ", ".join(f'"{name}"' for name in names)
        await connection.execute(_COPY_ACCOUNTS.format(columns=columns, values=", ".join(values)), number, timeout=900)
        await connection.execute("VACUUM ANALYZE ducto.accounts", timeout=900)
        await connection.execute("CHECKPOINT", timeout=900)
    finally:
        await connection.close()


@asynccontextmanager
async def _postgres_store(size: Size) -> AsyncIterator[PostgresStore]:
    async with bench_database() as database, PostgresStore(database.url) as store:
        await fill(database, size.rows)
        if size.accounts:
            await _copy_accounts(database, size.accounts)
        await _publish(store, size.versions)
        await warm(store, database)
        yield store


async def _measure_postgres(larger: list[Grown], *, rounds: int, seconds: float) -> list[Comparison]:
    async with AsyncExitStack() as opened:
        small = await opened.enter_async_context(_postgres_store(Size()))
        stores = [small, *[await opened.enter_async_context(_postgres_store(each.size)) for each in larger]]
        times: list[list[float]] = [[] for _ in stores]
        for _ in range(rounds):
            for store, taken in zip(stores, times, strict=True):
                figures = await callers(store, CALLERS, accounts=CALLING_ACCOUNTS, seconds=seconds)
                taken.append(2e6 / figures.per_second)
    return [_compared("PostgresStore", each, times[0], taken) for each, taken in zip(larger, times[1:], strict=True)]


def _compared(store: str, each: Grown, small: list[float], large: list[float]) -> Comparison:
    ours = figure(f"with {each.what}", large, unit="µs")
    peer = figure("the small store", small, unit="µs")
    what = f"{store}, reserve + deduct with {each.what}"
    return compare(what, ours, peer, aim=AIM_RATIO, better="lower", paired=True)


def measure(effort: Effort) -> Section:
    """Microseconds of a reserve and a deduct on each grown store, beside the small one."""
    larger, rounds = grown(effort), 2 if effort.quick else ROUNDS
    compared = _measure_memory(larger, rounds=rounds)
    compared += asyncio.run(_measure_postgres(larger, rounds=rounds, seconds=effort.seconds / 5))
    return Section("Growth", about(__doc__), compared)


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
