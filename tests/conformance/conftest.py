"""The stores that the conformance kit runs on: memory, and on real servers the SQL stores and those behind a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from ducto.testing.harness import Harness, HarnessFactory, ManualClockHarness
from tests.conformance.redis_harness import REDIS_STORES
from tests.conformance.sql_harness import SQL_STORES


@asynccontextmanager
async def open_memory() -> AsyncIterator[Harness]:
    clock = ManualClock()
    async with MemoryStore(clock=clock) as store:
        await store.setup()
        yield ManualClockHarness(store, clock)


STORES: Mapping[str, HarnessFactory] = {"memory": open_memory, **SQL_STORES, **REDIS_STORES}


@pytest.fixture(params=STORES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A store of each kind, set up, with a clock that the test moves."""
    async with STORES[request.param]() as opened:
        yield opened
