"""Does anybody get more than he paid for? 512 callers at once at a balance for 100 calls, in each store, many rounds.

Each round has a user of its own, with credits for 100 calls. All callers reserve at the same moment, and whoever gets a
hold charges the whole of it. Overspent are the calls that were charged beyond the 100, and a balance below zero counts
as well. How many calls a round admitted is told beside: fewer than 100 would be a refusal without need.

Run it with `python -m benchmarks.overspend`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from ducto.migrate import migrate
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import Database, new_database, postgres_server, start_postgrest
from ducto.testing.servers.databases import create_supabase_roles
from ducto.testing.servers.redis import start_redis

__all__ = ["main", "measure"]

AIM = 0.0

CALLERS = 512
AFFORDABLE_CALLS = 100
CREDITS_OF_A_CALL = 7
ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to."""

    charged_calls: int
    balance: int

    @property
    def overspent_calls(self) -> int:
        """Calls beyond what was paid for, by the charges or by the balance, whichever says more."""
        return max(0, self.charged_calls - AFFORDABLE_CALLS, -(self.balance // CREDITS_OF_A_CALL))


@asynccontextmanager
async def _memory(database: Database) -> AsyncIterator[CreditStore]:
    async with MemoryStore() as store:
        yield store


@asynccontextmanager
async def _postgres(database: Database) -> AsyncIterator[CreditStore]:
    async with PostgresStore(database.url) as store:
        yield store


@asynccontextmanager
async def _postgrest(database: Database) -> AsyncIterator[CreditStore]:
    with start_postgrest(database) as server:
        async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as store:
            yield store


@asynccontextmanager
async def _behind_redis(database: Database) -> AsyncIterator[CreditStore]:
    with start_redis() as server:
        async with RedisCacheStore(PostgresStore(database.url), server.url, owns_inner=True) as store:
            yield store


#: Each store by its name in the report.
STORES: dict[str, Callable[[Database], AbstractAsyncContextManager[CreditStore]]] = {
    "MemoryStore": _memory,
    "PostgresStore": _postgres,
    "HttpxSupabaseStore": _postgrest,
    "RedisCacheStore before PostgresStore": _behind_redis,
}


async def play(store: CreditStore, user_id: str, *, callers: int) -> Round:
    """One round, with a user who must be new."""
    await store.add_credits(user_id, AFFORDABLE_CALLS * CREDITS_OF_A_CALL)

    async def spend() -> int:
        held = await store.reserve_credits(user_id, CREDITS_OF_A_CALL, "chat", min_balance=0)
        if held.reservation_id is None:
            assert held.error == "insufficient_credits", held
            return 0
        charged = await store.deduct_credits(user_id, held.reservation_id, CREDITS_OF_A_CALL)
        assert charged.ok, charged
        return 1

    charged_calls = sum(await asyncio.gather(*(spend() for _ in range(callers))))
    return Round(charged_calls, (await store.get_balance(user_id)).balance)


async def _measure(effort: Effort) -> Section:
    rounds = 2 if effort.quick else ROUNDS
    compared: list[Comparison] = []
    figures: list[Figure] = []
    server = postgres_server("new", durable=True)
    await create_supabase_roles(server)
    async with new_database(server) as database:
        result = await migrate(database.url)
        assert result.success, result.errors
        for number, (name, opened) in enumerate(STORES.items()):
            begun = time.perf_counter()
            async with opened(database) as store:
                played = [await play(store, f"user{number}-{each}", callers=CALLERS) for each in range(rounds)]
            elapsed = time.perf_counter() - begun
            overspent = Figure(f"overspent calls, {name}", "calls", sum(each.overspent_calls for each in played))
            what = f"overspent in {rounds} rounds of {CALLERS} callers at credits for {AFFORDABLE_CALLS} calls, {name}"
            compared.append(compare(what, overspent, aim=AIM, better="lower"))
            figures += [
                figure(f"calls charged a round, {name}", [each.charged_calls for each in played], unit="calls"),
                figure(f"all rounds, {name}", elapsed, unit="s"),
            ]
    return Section("Overspend under load", about(__doc__), compared, figures)


def measure(effort: Effort) -> Section:
    """Overspent calls in each store, which must be 0."""
    return asyncio.run(_measure(effort))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
