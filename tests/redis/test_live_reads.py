"""Pricing through Redis: one loads for all, nobody puts back what a publish has replaced, and Redis may go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio

from ducto.errors import StoreError
from ducto.stores.memory import MemoryStore
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.stores.redis.pricing import RedisPricing
from ducto.testing.servers.redis import RedisServer, redis_cluster, redis_server, start_redis

DEAR = {"models": {"m": {"unit": "credits", "input": "10.5"}}, "plans": {"pro": {"free_allowance": 5}}}
CHEAP = {"models": {"m": {"unit": "credits", "input": "1.10"}}, "plans": {"basic": {"free_allowance": 1}}}


class Books(MemoryStore):
    """Counts what is read of the pricing; a read that waits has its answer already."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.fails = False
        self.heard: list[Callable[[str | None], None]] = []

    async def get_active_pricing(self) -> Any:
        return await self._counted(super().get_active_pricing())

    async def get_pricing_config(self, version: int | str) -> Any:
        return await self._counted(super().get_pricing_config(version))

    async def list_plans(self, *, include_dropped: bool = False) -> Any:
        return await self._counted(super().list_plans(include_dropped=include_dropped))

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        self.heard.append(heard)
        return lambda: self.heard.remove(heard)

    async def _counted(self, answer: Awaitable[Any]) -> Any:
        found = await answer
        self.reads += 1
        await self.may_answer.wait()
        if self.fails:
            raise StoreError("The books are closed.", retryable=True)
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    return redis_server()


@pytest.fixture
def prefix() -> str:
    return f"t{uuid4().hex[:8]}"


@asynccontextmanager
async def opened(server: RedisServer, inner: MemoryStore, prefix: str, **options: Any) -> AsyncIterator[RedisPricing]:
    """As one process has it."""
    # The budget is for a machine that is busy with other tests.
    link = RedisLink(server.url, **{"budget_seconds": 2.0, "open_seconds": 0.1, **options})
    pricing = RedisPricing(link, inner, prefix=prefix, counters=CacheCounters())
    try:
        yield pricing
    finally:
        await pricing.aclose()
        await link.aclose()


async def active_id(pricing: RedisPricing) -> str | None:
    found = await pricing.active()
    return None if found is None else found.id


async def eventually(told: Callable[[], Awaitable[object]], expected: object) -> None:
    async with asyncio.timeout(5):
        while await told() != expected:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def test_it_answers_what_the_store_answers(server: RedisServer, prefix: str) -> None:
    books = Books()
    async with opened(server, books, prefix) as one, opened(server, books, prefix) as other:
        assert await one.active() is None
        assert await other.active() is None
        for config in (DEAR, CHEAP):
            version = await books.set_active_pricing(config, label="of the test")
            await one.published(version)
            for pricing in (one, other, one, other):
                assert await pricing.active() == await books.get_active_pricing()
                assert await pricing.history() == await books.get_pricing_history()
                for dropped in (False, True):
                    assert await pricing.plans(include_dropped=dropped) == await books.list_plans(
                        include_dropped=dropped
                    )
                for asked in (1, 2, "1", "2", 3, "3", "", "01", "x" * 300, "\ud800", "ä"):
                    assert await pricing.config(asked) == await books.get_pricing_config(asked)
        with pytest.raises(Exception, match="bool"):
            await one.config(True)


async def test_a_publish_is_seen_by_all_from_its_acknowledgement_on(server: RedisServer, prefix: str) -> None:
    books = Books()
    async with opened(server, books, prefix) as one, opened(server, books, prefix) as other:
        for number in range(1, 200):
            writer, reader = (one, other) if number % 2 else (other, one)
            version = await books.set_active_pricing({**DEAR, "version": 1}, label=str(number))
            await writer.published(version)
            assert await active_id(reader) == str(number)
            assert (await reader.history())[0].id == str(number)


async def test_who_loaded_before_a_publish_never_puts_the_old_version_back(server: RedisServer, prefix: str) -> None:
    """Fails where `pricing_fill.lua` does not look for the token."""
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as slow, opened(server, books, prefix) as other:
        books.may_answer.clear()
        loading = asyncio.ensure_future(active_id(slow))
        await until(lambda: books.reads == 1)
        version = await books.set_active_pricing(CHEAP)
        await other.published(version)
        books.may_answer.set()
        await loading
        assert await active_id(other) == version
        assert await active_id(slow) == version


async def test_one_process_loads_for_all(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(opened(server, books, prefix)) for _ in range(8)]
        for reading in (active_id, lambda pricing: pricing.plans(include_dropped=True)):
            before = books.reads
            books.may_answer.clear()
            asked = [asyncio.ensure_future(reading(each)) for each in processes for _ in range(4)]
            await until(lambda before=before: books.reads > before)  # type: ignore[misc]
            await asyncio.sleep(0.01)  # The others find that somebody loads.
            books.may_answer.set()
            await asyncio.gather(*asked)
            assert books.reads == before + 1


async def test_a_publish_that_nobody_tells_of_is_seen(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one:
        epoch = await one.epoch()
        assert await active_id(one) == "1"
        await books.set_active_pricing(CHEAP)
        await eventually(lambda: active_id(one), "2")
        await eventually(lambda: _ids(one), ["basic"])
        assert await one.epoch() != epoch
        await books.activate_pricing("1")
        await asyncio.sleep(0.35)
        assert await active_id(one) == "1"  # Too old to be served while it is loaded.


async def _ids(pricing: RedisPricing) -> list[str]:
    return [plan.id for plan in await pricing.plans(include_dropped=False)]


async def test_the_epoch_changes_with_each_publish_and_with_nothing_else(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one, opened(server, books, prefix) as other:
        epochs = {await one.epoch()}
        begun = books.reads
        async with asyncio.timeout(5):
            while books.reads < begun + 3:  # Loaded anew, and the same.
                epochs |= {await one.epoch(), await other.epoch()}
                await asyncio.sleep(0.005)
        assert len(epochs) == 1
        for version in ("1", "1"):  # What is active again may have other plans beside it.
            await books.activate_pricing(version)
            await other.published(version)
            epochs |= {await one.epoch(), await other.epoch()}
        assert len(epochs) == 3


async def test_a_loader_that_died_is_not_waited_for(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as dead, opened(server, books, prefix) as other:
        books.may_answer.clear()
        loading = asyncio.ensure_future(active_id(dead))
        await until(lambda: books.reads == 1)
        waiting = asyncio.ensure_future(active_id(other))
        await until(lambda: books.reads == 2)  # Does without Redis, in the end.
        loading.cancel()
        books.may_answer.set()
        assert await waiting == "1"
        await eventually(lambda: _has_epoch(other), True)


async def _has_epoch(pricing: RedisPricing) -> bool:
    try:
        await pricing.epoch()
    except RedisUnavailable:
        return False
    return True


async def test_what_the_store_raises_is_raised_and_hinders_nobody(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one:
        books.fails = True
        for asked in (one.active, one.epoch, lambda: one.config(1), lambda: one.plans(include_dropped=False)):
            with pytest.raises(StoreError, match="closed"):
                await asked()
        books.fails = False
        await asyncio.sleep(0.05)
        assert await one.epoch()  # The lease of who failed is not waited for.
        assert await active_id(one) == "1"


async def test_nothing_written_by_another_version_is_served(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one, opened(server, books, prefix) as other:
        assert await active_id(one) == "1"
        server.execute("HSET", f"{prefix}:1:{{pricing}}", "active:d", "strange", "active:v", '{"identifier": 7}')
        assert await active_id(other) == "1"


async def test_redis_is_flushed_and_nothing_is_stale(server: RedisServer, prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one:
        epoch = await one.epoch()
        await books.set_active_pricing(CHEAP)
        server.execute("DEL", f"{prefix}:1:{{pricing}}")
        assert await active_id(one) == "2"
        assert await one.epoch() != epoch


async def test_without_redis_the_store_is_asked(prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    with start_redis() as server:
        async with opened(server, books, prefix, budget_seconds=0.2) as one, opened(server, books, prefix) as other:
            assert [await active_id(one), await active_id(other)] == ["1", "1"]
            server.pause()
            version = await books.set_active_pricing(CHEAP)
            await one.published(version)
            assert await active_id(one) == version
            assert await _ids(one) == ["basic"]
            with pytest.raises(RedisUnavailable):
                await one.epoch()
            server.resume()
            assert await active_id(one) == version  # What Redis still has is not believed.
            await eventually(lambda: active_id(other), version)
            await eventually(lambda: _has_epoch(one), True)
            assert await active_id(one) == version


async def test_who_could_not_tell_redis_does_not_believe_it(prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    impatient = {"budget_seconds": 0.02, "open_seconds": 0.01}
    with start_redis() as server:
        async with opened(server, books, prefix, **impatient) as one, opened(server, books, prefix) as other:
            await active_id(one)
            assert await active_id(other) == "1"
            server.pause()
            version = await books.set_active_pricing(CHEAP)
            await one.published(version)
            server.resume()
            for _ in range(30):
                assert await active_id(one) == version
                await asyncio.sleep(0.01)


async def test_a_publish_is_told_to_whoever_listens_and_what_the_store_hears_is_passed_on(
    server: RedisServer, prefix: str
) -> None:
    books, deaf = Books(), Books()
    await deaf.set_active_pricing(DEAR)
    async with opened(server, books, prefix) as one, opened(server, deaf, prefix) as other:
        told: asyncio.Queue[str | None] = asyncio.Queue()
        heard_by_one: list[str | None] = []
        stop = other.listen(told.put_nowait)
        stop_one = one.listen(heard_by_one.append)
        async with asyncio.timeout(5):
            assert await told.get() is None  # It listens from now on.
            await one.published("7")
            assert await told.get() == "7"
            await one.published(None)
            assert await told.get() is None
            epoch = await other.epoch()
            books.heard[0]("8")
            assert await told.get() == "8"
            assert await other.epoch() != epoch
            await until(lambda: heard_by_one.count("8") == 2)  # From the store, and from Redis.
            epoch = await other.epoch()
            books.heard[0]("8")  # As another process that heard of the same publish.
            await until(lambda: heard_by_one.count("8") >= 3)
            assert await other.epoch() == epoch
        stop()
        stop_one()
        assert books.heard == deaf.heard == []


async def test_in_a_cluster_it_is_told_by_one_server_and_heard_on_all(prefix: str) -> None:
    books = Books()
    await books.set_active_pricing(DEAR)
    with redis_cluster() as servers:
        link = RedisLink(servers.url, budget_seconds=2.0)
        one = RedisPricing(link, books, prefix=prefix, counters=CacheCounters())
        hearing: list[asyncio.Queue[bytes]] = []
        async with AsyncExitStack() as stack:
            stack.push_async_callback(link.aclose)
            stack.push_async_callback(one.aclose)
            told: asyncio.Queue[str | None] = asyncio.Queue()
            one.listen(told.put_nowait)
            async with asyncio.timeout(5):
                assert await told.get() is None
            for server in servers.servers:
                queue: asyncio.Queue[bytes] = asyncio.Queue()
                client = await stack.enter_async_context(redis.asyncio.Redis.from_url(server.url))
                channel = await stack.enter_async_context(client.pubsub())
                await channel.subscribe(f"{prefix}:1:pricing")
                listening = asyncio.ensure_future(_pass_on(channel, queue))
                stack.callback(listening.cancel)
                hearing.append(queue)
            assert await active_id(one) == "1"
            version = await books.set_active_pricing(CHEAP)
            async with asyncio.timeout(5):
                for queue in hearing:
                    assert await queue.get() == b"subscribed"
                await one.published(version)
                assert [await queue.get() for queue in hearing] == [b"2"] * len(servers.servers)
                assert await told.get() == "2"
            assert await active_id(one) == "2"


async def _pass_on(channel: Any, queue: asyncio.Queue[bytes]) -> None:
    async for message in channel.listen():
        queue.put_nowait(b"subscribed" if message["type"] == "subscribe" else message["data"])


async def test_a_callback_that_fails_hinders_no_other(server: RedisServer, prefix: str) -> None:
    books = Books()
    async with opened(server, books, prefix) as one:
        told: list[str | None] = []

        def broken(version: str | None) -> None:
            raise ValueError(version)

        one.listen(broken)
        one.listen(told.append)
        books.heard[0]("1")
        await until(lambda: "1" in told)
