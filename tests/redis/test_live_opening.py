"""Redis from the environment, in front of the store and behind the gateway."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from ducto.errors import StoreError
from ducto.interface.redis import RedisCacheStore
from ducto.stores.memory import MemoryStore
from ducto.stores.opening import open_store
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database
from ducto.testing.servers.redis import RedisServer, redis_server
from tests.conformance.sql_harness import migrated_database


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Named by the environment, with a prefix that nobody else has."""
    started = redis_server()
    monkeypatch.setenv("DUCTO_REDIS_URL", started.url)
    monkeypatch.setenv("DUCTO_REDIS_PREFIX", f"t{uuid4().hex[:8]}")
    return started


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with migrated_database("new") as made:
        yield made


def kept(server: RedisServer) -> set[str]:
    """What is in Redis under the prefix, without it."""
    prefix = os.environ["DUCTO_REDIS_PREFIX"]
    return {name.decode().removeprefix(f"{prefix}:1:") for name in server.execute("KEYS", f"{prefix}:1:*")}


async def test_a_store_from_a_url_has_the_redis_of_the_environment(server: RedisServer, database: Database) -> None:
    store = open_store(database.url)
    assert isinstance(store, RedisCacheStore)
    assert isinstance(store.inner, PostgresStore)
    async with store:
        await store.add_credits("ann", 7)
        async with asyncio.timeout(10):
            while "{u:ann}" not in kept(server):  # On a busy machine Redis may not answer within its 50 ms.
                assert (await store.get_balance("ann")).balance == 7
                await asyncio.sleep(0.01)
    with pytest.raises(StoreError, match="closed"):  # Who opened it closed it.
        await store.inner.get_balance("ann")


async def test_a_store_in_memory_has_none(server: RedisServer) -> None:
    """It would be served what another process with the same names kept."""
    assert isinstance(open_store("memory"), MemoryStore)


async def test_without_the_variable_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCTO_REDIS_URL", "")
    assert isinstance(open_store("postgresql://ann@127.0.0.1/x"), PostgresStore)
    monkeypatch.delenv("DUCTO_REDIS_URL")
    assert isinstance(open_store("postgresql://ann@127.0.0.1/x"), PostgresStore)


async def test_the_demo_runs_through_redis(server: RedisServer, database: Database) -> None:
    demo = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ducto", "demo"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", "DUCTO_STORE": database.superuser_url},
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The books agree" in demo.stdout
    names = kept(server)
    assert any(name.startswith("answer:") for name in names)
    assert any(name.startswith("{u:alice}:r:") for name in names)
    assert "{pricing}" in names
