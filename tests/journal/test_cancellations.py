"""Callers who are cancelled at any moment: what was done is charged once, what was not is released, nothing is held."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from ducto.journal import SettleJournal
from ducto.manager import CreditManager
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import new_database, postgres_server
from tests.journal.support import outstanding, segments
from tests.unit.manager_support import PRICING

CALLS = 2_000
AT_ONCE = 50
USERS = 10
START = 1_000_000
COST = 7


async def test_every_call_is_charged_or_released_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    done: list[str] = []
    async with new_database(postgres_server()) as database:
        assert (await migrate(database.url)).success
        async with PostgresStore(database.url) as store:
            journal = SettleJournal(folder, replay_every_seconds=0.5)
            async with CreditManager(store, maintain_every_seconds=None, journal=journal) as manager:
                await manager.publish_pricing(PRICING)
                users = [f"user-{number}" for number in range(USERS)]
                for user in users:
                    await manager.add_credits(user, START)

                async def call(user: str) -> None:
                    async with manager.meter(user, estimate=50) as metered:
                        await asyncio.sleep(chance.random() * 0.01)
                        metered.record(COST)
                        done.append(user)

                begun = asyncio.get_running_loop().time()
                await asyncio.gather(*(call(users[number % USERS]) for number in range(AT_ONCE)))
                # At any moment of a call, on a machine however busy.
                longest = 1.5 * (asyncio.get_running_loop().time() - begun)

                async def cancelled(user: str) -> None:
                    task = asyncio.ensure_future(call(user))
                    await asyncio.wait((task,), timeout=chance.random() * longest)
                    task.cancel()
                    await asyncio.wait((task,))
                    assert task.cancelled() or task.exception() is None

                for begin in range(0, CALLS, AT_ONCE):
                    await asyncio.gather(
                        *(cancelled(users[number % USERS]) for number in range(begin, begin + AT_ONCE))
                    )
            assert segments(folder, store.books_name or "") == []
            assert outstanding(folder, store.books_name or "") == []
            standing = [await store.get_available(user) for user in users]
            assert [one.balance for one in standing] == [START - COST * done.count(user) for user in users]
            assert sum(one.held for one in standing) == 0
            assert (await store.verify()).ok
    assert AT_ONCE + CALLS / 20 < len(done) < CALLS
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]
