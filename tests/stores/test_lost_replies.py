"""The reply to a reserve is lost after the commit: the call that asked runs and is charged once, nobody else's does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto import CreditManager
from ducto.errors import CallInFlightError
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import Database, start_postgrest
from tests.conformance.sql_harness import migrated_database
from tests.stores.proxy import CuttingProxy
from tests.unit.manager_support import Heard, TroubledStore


class Lossy(NamedTuple):
    """A store behind a proxy that can lose a reply, and its database."""

    store: CreditStore
    proxy: CuttingProxy
    database: Database

    async def reservations(self) -> list[tuple[str, str]]:
        """Key and state of each, in the order in which they were made."""
        connection = await asyncpg.connect(self.database.superuser_url)
        try:
            rows = await connection.fetch("SELECT key, state FROM ducto.reservations ORDER BY created_at, key")
        finally:
            await connection.close()
        return [(row["key"], row["state"]) for row in rows]


@asynccontextmanager
async def lossy_postgres() -> AsyncIterator[Lossy]:
    async with migrated_database("new") as database, CuttingProxy.to(database.server.port) as proxy:
        url = database.url.replace(f":{database.server.port}/", f":{proxy.port}/")
        async with PostgresStore(url) as store:
            yield Lossy(store, proxy, database)


@asynccontextmanager
async def lossy_postgrest() -> AsyncIterator[Lossy]:
    async with migrated_database("new", roles=True) as database:
        with start_postgrest(database) as server:
            async with CuttingProxy.to(urlsplit(server.url).port or 0) as proxy:
                url = f"http://127.0.0.1:{proxy.port}"
                async with HttpxSupabaseStore(url=url, key=server.key(), rest_path="") as store:
                    yield Lossy(store, proxy, database)


@pytest.fixture(params=[lossy_postgres, lossy_postgrest], ids=["postgres", "postgrest"])
async def lossy(request: pytest.FixtureRequest) -> AsyncIterator[Lossy]:
    async with request.param() as opened:
        await opened.store.add_credits("ann", 1000)
        yield opened


async def test_a_metered_call_whose_reserve_was_committed_unheard_runs(lossy: Lossy) -> None:
    reserved: list[str | None] = []
    async with CreditManager(lossy.store) as manager:
        manager.on("credits.reserved", lambda event: reserved.append(event.user_id))
        async with manager.meter("ann", estimate=1) as call:
            call.record(0)
        reserved.clear()
        lossy.proxy.cut_next_reply(containing=b"reservation_id")
        async with manager.meter("ann", estimate=100, idempotency_key="k") as call:
            assert not lossy.proxy.will_cut, "the reply to the reserve was to be lost"
            assert (await lossy.reservations())[-1:] == [("k:1", "active")]
            async with CreditManager(lossy.store) as another:
                with pytest.raises(CallInFlightError):
                    await another.meter("ann", estimate=100, idempotency_key="k").start()
            with pytest.raises(CallInFlightError):
                await manager.meter("ann", estimate=100, idempotency_key="k").start()
            call.record(70)
        assert reserved == ["ann"], "the event is told once, by who did not hear the first reply"
    assert (await lossy.store.get_available("ann")).available == 930
    assert (await lossy.reservations())[-1] == ("k:1", "settled")


async def test_the_repetition_of_the_store_itself_is_no_replay(lossy: Lossy) -> None:
    """Also where the caller names no attempt: the store's call and its repetition are one."""
    lossy.proxy.cut_next_reply(containing=b"reservation_id")
    first = await lossy.store.reserve_credits("ann", 10, "chat", idempotency_key="k")
    assert not lossy.proxy.will_cut
    assert not first.replayed
    again = await lossy.store.reserve_credits("ann", 10, "chat", idempotency_key="k")
    assert again == first.model_copy(update={"replayed": True})
    assert await lossy.reservations() == [("k", "active")]


async def test_the_repetition_of_the_manager_is_no_replay() -> None:
    """Where the store itself does not ask again, the manager does, as the same attempt."""
    store = TroubledStore()
    await store.add_credits("ann", 1000)
    async with CreditManager(store) as manager:
        heard = Heard(manager, "credits.reserved")
        store.lose = 1
        async with manager.meter("ann", estimate=100, idempotency_key="k") as call:
            assert store.calls == ["reserve", "reserve"]
            with pytest.raises(CallInFlightError):
                await manager.meter("ann", estimate=100, idempotency_key="k").start()
            call.record(70)
        assert await heard.names() == ["reserved"]
    assert (await store.get_available("ann")).available == 930
