"""Harnesses of `RedisCacheStore` on a real Redis, in front of the memory store and of Postgres."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg  # type: ignore[import-untyped]

from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.testing.clock import ManualClock
from ducto.testing.harness import Harness, HarnessFactory, ManualClockHarness
from ducto.testing.servers.redis import redis_server
from tests.conformance.sql_harness import SqlHarness, open_postgres

__all__ = ["REDIS_STORES"]


class ShiftedHarness:
    """A SQL harness behind Redis: the front's clock is shifted together with the database's."""

    def __init__(self, inner: SqlHarness, shift: timedelta) -> None:
        self._inner = inner
        self._shift = shift
        self._store = RedisCacheStore(
            inner.store, redis_server().url, prefix=f"test-{secrets.token_hex(6)}", clock=self._now
        )

    @property
    def store(self) -> CreditStore:
        return self._store

    async def advance(self, seconds: float) -> None:
        await self._inner.advance(seconds)
        self._shift += timedelta(seconds=seconds)

    async def step_back(self, seconds: float) -> None:
        await self._inner.step_back(seconds)
        self._shift -= timedelta(seconds=seconds)

    def _now(self) -> datetime:
        return datetime.now(UTC) + self._shift


@asynccontextmanager
async def open_redis_memory() -> AsyncIterator[Harness]:
    clock = ManualClock()
    async with RedisCacheStore(
        MemoryStore(clock=clock), redis_server().url, prefix=f"test-{secrets.token_hex(6)}", clock=clock
    ) as store:
        await store.setup()
        yield ManualClockHarness(store, clock)


@asynccontextmanager
async def open_redis_postgres() -> AsyncIterator[Harness]:
    async with open_postgres("new")() as inner:
        connection = await asyncpg.connect(inner.database.superuser_url)
        try:
            shift = await connection.fetchval("SELECT shift FROM ducto_test.clock")
        finally:
            await connection.close()
        harness = ShiftedHarness(inner, shift)
        async with harness.store:
            yield harness


#: By name, for the fixture of the conformance kit.
REDIS_STORES: Mapping[str, HarnessFactory] = {
    "redis-memory": open_redis_memory,
    "redis-postgres18": open_redis_postgres,
}
