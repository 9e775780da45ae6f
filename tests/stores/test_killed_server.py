"""The server is killed under load, more than once: nothing that was acknowledged is lost, nothing is charged twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ducto.errors import StoreError
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import PostgresServer, new_database
from ducto.testing.servers.postgres import postgres_binaries

CALLERS = 16
CREDITS = 1_000_000


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own, with fsync on: it is going to be killed."""
    made = PostgresServer(postgres_binaries("new"), durable=True)
    made.start()
    yield made
    made.stop()


async def until_answered(store: PostgresStore, user: str, key: str) -> None:
    while True:
        try:
            result = await store.charge_credits(user, 1, idempotency_key=key)
        except StoreError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.02)
        else:
            assert result.ok, result
            return


async def test_nothing_is_lost_or_charged_twice(server: PostgresServer) -> None:
    async with new_database(server) as database:
        assert (await migrate(database.url)).success
        async with PostgresStore(database.url) as store:
            users = [f"u{number % 8}" for number in range(CALLERS)]
            for user in sorted(set(users)):
                await store.add_credits(user, CREDITS)
            answered = [0] * CALLERS
            going = True

            async def caller(number: int) -> None:
                while going:
                    await until_answered(store, users[number], f"{number}-{answered[number]}")
                    answered[number] += 1

            callers = [asyncio.ensure_future(caller(number)) for number in range(CALLERS)]
            for _ in range(3):
                await asyncio.sleep(0.5)
                before = sum(answered)
                server.process.kill_family()
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(15):
                    while sum(answered) <= before + CALLERS:  # noqa: ASYNC110 - the callers tell nobody
                        await asyncio.sleep(0.02)
            going = False
            await asyncio.gather(*callers)
            left = [(await store.get_balance(user)).balance for user in sorted(set(users))]
            assert sum(left) == len(left) * CREDITS - sum(answered)
            assert sum(answered) > 100
