"""Too few connections, sessions that change between transactions, and locks in opposite orders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import StoreError
from ducto.manager import CreditManager
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database
from tests.conformance.sql_harness import PATIENCE_SECONDS, migrated_database
from tests.faults_matrix.transaction_pooler import TransactionPooler
from tests.middleware.support import BODIES, CHAT, PRICING, Books, Caller, app_sending


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with migrated_database("new") as made:
        yield made


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.superuser_url)
    yield connection
    await connection.close()


async def test_without_a_free_connection_calls_are_refused_in_time_and_settles_go_on(
    database: Database, admin: Any
) -> None:
    """A pool of 8, 8 reports that hang, 200 requests: each gets its 503 after a second or two."""
    async with (
        PostgresStore(database.url, pool_size=8, lock_timeout_seconds=8) as store,
        CreditManager(store, maintain_every_seconds=None) as manager,
    ):
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 100_000, "purchase", idempotency_key="start")
        held = await store.reserve_credits("alice", 100, "chat", min_balance=0)
        door = Books(store, manager).door(app_sending([b"{}"], media_type="application/json"))  # type: ignore[arg-type]
        caller = Caller(door)
        assert (await caller.post(CHAT, BODIES[CHAT])).status == 200
        async with admin.transaction():
            await admin.execute("LOCK TABLE ducto.pricing_configs IN ACCESS EXCLUSIVE MODE")
            sleepers = [asyncio.ensure_future(store.get_pricing_history()) for _ in range(8)]
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            settled = asyncio.ensure_future(store.deduct_credits("alice", held.reservation_id or "", 60))
            answers = await asyncio.gather(
                *(Caller(door, user=f"user-{n}").post(CHAT, BODIES[CHAT]) for n in range(200))
            )
            assert time.monotonic() - begun < 5
            assert {answer.status for answer in answers} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            assert {answer.json["error"]["code"] for answer in answers} == {"store_unavailable"}
            assert (await asyncio.wait_for(settled, 2)).ok
        await asyncio.gather(*sleepers, return_exceptions=True)
        assert (await caller.post(CHAT, BODIES[CHAT])).status == 200
        assert (await store.get_available("alice")).held == 0


async def test_opposite_orders_of_locks_never_deadlock(database: Database, admin: Any) -> None:
    """64 callers: transfers both ways, spends of users and of their team, sweeps. Postgres counts no deadlock."""
    random = Random(5)
    users = [f"user-{number}" for number in range(6)]
    before = await deadlocks(admin, database)
    async with PostgresStore(database.url, acquire_timeout_seconds=PATIENCE_SECONDS, batch_lanes=6) as store:
        for user in users:
            await store.add_credits(user, 10_000)
        team = (await store.create_team("crew", 10_000)).team_id
        assert team is not None
        for user in users:
            await store.add_team_member(team, user)

        async def caller() -> None:
            for _ in range(12):
                one, other = random.sample(users, 2)
                match random.randrange(4):
                    case 0 | 1:
                        assert (await store.transfer_credits(one, other, 1)).ok
                    case 2:
                        spent = await asyncio.gather(store.deduct_team(team, one, 1), store.charge_credits(other, 1))
                        assert all(each.ok for each in spent)
                    case _:
                        await store.sweep_expired_credits()

        await asyncio.gather(*(caller() for _ in range(64)))
        assert (await store.verify()).ok
    assert await deadlocks(admin, database) == before


async def deadlocks(admin: Any, database: Database) -> int:
    await admin.execute("SELECT pg_stat_force_next_flush()")
    found: int = await admin.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", database.name)
    return found


async def test_each_transaction_may_run_in_another_session(database: Database) -> None:
    async with TransactionPooler.to(database.server.port) as pooler:
        url = f"postgresql://postgres@127.0.0.1:{pooler.port}/{database.name}"
        async with PostgresStore(url, statement_cache=False, acquire_timeout_seconds=PATIENCE_SECONDS) as store:
            await asyncio.gather(*(store.add_credits(f"user-{number}", 100) for number in range(50)))

            async def call(number: int) -> None:
                user = f"user-{number % 50}"
                held = await store.reserve_credits(user, 10, "chat", min_balance=0, idempotency_key=f"call-{number}")
                assert (await store.deduct_credits(user, held.reservation_id or "", 4)).ok

            await asyncio.gather(*(call(number) for number in range(300)))
            assert await store.set_active_pricing({"models": {"m": {"unit": "credits", "input": 1}}})
            assert {(await store.get_balance(f"user-{number}")).balance for number in range(50)} == {100 - 6 * 4}
            assert (await store.verify()).ok
        assert pooler.transactions > 20


async def test_with_prepared_statements_such_a_pooler_is_an_error_and_never_a_wrong_answer(database: Database) -> None:
    """The option is needed: this shows that the pooler above does take the session away."""
    async with TransactionPooler.to(database.server.port) as pooler:
        url = f"postgresql://postgres@127.0.0.1:{pooler.port}/{database.name}"
        async with PostgresStore(url) as store:
            answers = [attempt(store, f"key-{number}") for number in range(12)]
            failures = [one for one in await asyncio.gather(*answers) if isinstance(one, StoreError)]
    # No such prepared statement, or one more of its name.
    assert any("26000" in str(one) or "42P05" in str(one) for one in failures), failures


async def attempt(store: PostgresStore, key: str) -> object:
    try:
        return await store.charge_credits(key, 1, force=True, idempotency_key=key)
    except StoreError as error:
        return error
