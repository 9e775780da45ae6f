"""A publish is seen by managers in other processes and on other kinds of store, on one real database."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.manager import CreditManager
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database
from tests.conformance.sql_harness import migrated_database, open_postgrest

DEAR = {"models": {"m": {"unit": "credits", "input": 10_000_000}}}
CHEAP = {"models": {"m": {"unit": "credits", "input": 1_000_000}}}

#: Generous: what is asserted is that it is seen at all. How soon is printed.
SEEN_WITHIN_SECONDS = 5.0

PUBLISH = """
import asyncio, sys
from ducto.stores.postgres import PostgresStore

async def main():
    async with PostgresStore(sys.argv[1]) as store:
        print(await store.set_active_pricing({"models": {"m": {"unit": "credits", "input": 3_000_000}}}))

asyncio.run(main())
"""


async def seen_after(reader: CreditManager, version: str) -> float:
    """How many seconds it takes until the manager prices by `version`."""
    begun = time.monotonic()
    async with asyncio.timeout(SEEN_WITHIN_SECONDS):
        while (await reader.pricing()).version != version:  # noqa: ASYNC110 - as calls would find it
            await asyncio.sleep(0.005)
    seconds = time.monotonic() - begun
    print(f"seen after {seconds * 1000:.0f} ms")
    return seconds


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with migrated_database("new") as made:
        yield made


async def listening(connection: asyncpg.Connection) -> list[int]:
    """The backends that listen on this database."""
    found = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    return [row[0] for row in found]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


async def test_a_publish_by_another_process_is_heard_of(database: Database) -> None:
    """The manager would not look by itself for an hour."""
    async with (
        PostgresStore(database.url) as store,
        PostgresStore(database.url) as elsewhere,
        CreditManager(store, pricing_refresh_seconds=3600) as reader,
        CreditManager(elsewhere, pricing_refresh_seconds=3600) as publisher,
    ):
        await reader.publish_pricing(DEAR)
        await seen_after(publisher, "1")
        admin = await asyncpg.connect(database.superuser_url)
        try:
            await until(lambda: _two_listen(admin))
        finally:
            await admin.close()
        assert await publisher.publish_pricing(CHEAP) == "2"
        await seen_after(reader, "2")
        await publisher.activate_pricing("1")
        await seen_after(reader, "1")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PUBLISH, database.url, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert printed.decode().strip() == "3"
        await asyncio.gather(seen_after(reader, "3"), seen_after(publisher, "3"))


async def _two_listen(connection: asyncpg.Connection) -> bool:
    return len(await listening(connection)) == 2


async def test_without_the_connection_that_listens_the_manager_looks_by_itself(database: Database) -> None:
    async with (
        PostgresStore(database.url, pool_size=1, settle_pool_size=1) as store,
        PostgresStore(database.superuser_url) as elsewhere,
        CreditManager(store) as reader,
    ):
        await reader.publish_pricing(DEAR)
        admin = await asyncpg.connect(database.superuser_url)
        try:
            await until(lambda: listening(admin))
            owner = database.name + "_owner"
            await admin.execute(f"ALTER ROLE {owner} CONNECTION LIMIT 1")  # The store has a connection in its pool.
            for pid in await listening(admin):
                await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await until(lambda: _nobody_listens(admin))
            assert await elsewhere.set_active_pricing(CHEAP) == "2"
            await seen_after(reader, "2")
            assert await listening(admin) == []
        finally:
            await admin.close()


async def _nobody_listens(connection: asyncpg.Connection) -> bool:
    return not await listening(connection)


async def test_a_store_that_cannot_hear_sees_it_too() -> None:
    """Over PostgREST nobody can listen, so the manager looks by itself."""
    async with (
        open_postgrest() as harness,
        PostgresStore(harness.database.url) as elsewhere,
        CreditManager(harness.store) as reader,
    ):
        await reader.publish_pricing(DEAR)
        for config in (CHEAP, DEAR):
            await seen_after(reader, await elsewhere.set_active_pricing(config))


async def test_the_active_config_is_sent_once_and_never_stale(database: Database) -> None:
    """Asking again costs the database a few bytes, whoever changed what meanwhile."""
    async with PostgresStore(database.url) as store, PostgresStore(database.url) as elsewhere:
        assert await store.get_active_pricing() is None
        for _ in range(2):
            await elsewhere.set_active_pricing(DEAR, label="dear")
            first = await store.get_active_pricing()
            assert first is not None
            assert await store.get_active_pricing() is first
            await elsewhere.set_active_pricing(CHEAP)
            await _is_the_same_for(store, elsewhere)
            await elsewhere.activate_pricing(first.id)
            await _is_the_same_for(store, elsewhere)


async def _is_the_same_for(*stores: CreditStore) -> None:
    answers = [await store.get_active_pricing() for store in stores]
    assert answers[0] is not None
    assert answers[0] == answers[1] == await stores[0].get_pricing_config(answers[0].id)
