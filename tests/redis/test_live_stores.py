"""One database behind Redis and beside it, over SQL and over HTTP: a publish by any process is seen by all others.

Printed is how soon; asserted is that it is seen at all within a time that no busy machine needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from uuid import uuid4

import pytest

from ducto.interface.redis import RedisCacheStore
from ducto.manager import CreditManager
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis.link import RedisLink
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import start_postgrest
from ducto.testing.servers.redis import RedisServer, redis_server, start_redis
from tests.conformance.sql_harness import migrated_database

DEAR: dict[str, Any] = {"models": {"m": {"unit": "credits", "input": 10_000_000}}}
CHEAP: dict[str, Any] = {
    "models": {"m": {"unit": "credits", "input": 1_000_000}},
    "default_plan": "basic",
    "plans": {"basic": {"free_allowance": 7}},
}
SEEN_WITHIN_SECONDS = 5.0


@dataclass
class Fleet:
    """Processes on one database, by what their store is, each with a manager."""

    stores: dict[str, CreditStore]
    managers: dict[str, CreditManager]

    async def versions(self) -> dict[str, str | None]:
        return {name: (await manager.pricing()).version for name, manager in self.managers.items()}

    async def seen(self, version: str) -> None:
        """Return when every manager prices by `version`."""
        begun = time.monotonic()
        waiting = set(self.managers)
        async with asyncio.timeout(SEEN_WITHIN_SECONDS):
            while waiting:
                for name in sorted(waiting):
                    if (await self.managers[name].pricing()).version == version:
                        print(f"{name} saw version {version} after {(time.monotonic() - begun) * 1000:.0f} ms")
                        waiting.remove(name)
                await asyncio.sleep(0.005)


async def opened(stack: AsyncExitStack, server: RedisServer) -> Fleet:
    database = await stack.enter_async_context(migrated_database("new", roles=True))
    postgrest = stack.enter_context(start_postgrest(database))
    prefix = f"t{uuid4().hex[:8]}"

    def over_http() -> HttpxSupabaseStore:
        return HttpxSupabaseStore(url=postgrest.url, key=postgrest.key(), rest_path="")

    async def fronted(inner: CreditStore) -> CreditStore:
        # The budget is for a machine that is busy with other tests.
        link = RedisLink(server.url, budget_seconds=1.0, open_seconds=0.1)
        stack.push_async_callback(link.aclose)
        return await stack.enter_async_context(RedisCacheStore(inner, link, prefix=prefix, owns_inner=True))

    stores: dict[str, CreditStore] = {
        "redis(postgres)": await fronted(PostgresStore(database.url)),
        "redis(supabase)": await fronted(over_http()),
        "postgres": await stack.enter_async_context(PostgresStore(database.url)),
        "supabase": await stack.enter_async_context(over_http()),
    }
    managers = {name: await stack.enter_async_context(CreditManager(store)) for name, store in stores.items()}
    await stores["postgres"].set_active_pricing(DEAR)
    fleet = Fleet(stores, managers)
    await fleet.seen("1")
    return fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield await opened(stack, redis_server())


async def test_a_publish_by_any_is_seen_by_all(fleet: Fleet) -> None:
    configs = cycle([CHEAP, DEAR])
    for name, manager in fleet.managers.items():
        print(f"{name} publishes")
        version = await manager.publish_pricing(next(configs))
        assert (await manager.pricing()).version == version  # The publisher itself at once.
        await fleet.seen(version)
        await manager.activate_pricing("1")
        await fleet.seen("1")


async def test_stores_on_one_redis_see_it_from_the_acknowledgement_on(fleet: Fleet) -> None:
    """The plan that a user has by default too, which hangs on the active config."""
    pair = [fleet.stores["redis(postgres)"], fleet.stores["redis(supabase)"]]
    for number in range(20):
        writer, reader = pair if number % 2 else pair[::-1]
        version = await writer.set_active_pricing(CHEAP if number % 2 else DEAR)
        active = await reader.get_active_pricing()
        assert active is not None
        assert active.id == version
        plans = [plan.id for plan in await reader.list_plans()]
        assert plans == (["basic"] if number % 2 else [])
        assert (await reader.get_user_plan("ann")).plan_id == ("basic" if number % 2 else None)
        assert (await reader.check_allowance("ann")).allowance == (7 if number % 2 else 0)


async def test_a_user_plan_follows_a_publish_beside_redis(fleet: Fleet) -> None:
    reader = fleet.stores["redis(supabase)"]
    assert (await reader.get_user_plan("ann")).plan_id is None
    await fleet.stores["postgres"].set_active_pricing(CHEAP)
    async with asyncio.timeout(SEEN_WITHIN_SECONDS):
        while (await reader.get_user_plan("ann")).plan_id != "basic":  # noqa: ASYNC110 - as calls would find it
            await asyncio.sleep(0.005)


async def test_all_see_a_publish_while_redis_is_gone_and_when_it_is_back() -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(start_redis())
        fleet = await opened(stack, server)
        server.kill()
        await fleet.seen(await fleet.managers["redis(supabase)"].publish_pricing(CHEAP))
        await fleet.seen(await fleet.managers["postgres"].publish_pricing(DEAR))
        server.start()
        for name in ("redis(postgres)", "supabase"):
            await fleet.seen(await fleet.managers[name].publish_pricing(CHEAP))
