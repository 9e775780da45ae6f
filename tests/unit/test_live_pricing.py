"""How the manager keeps its pricing fresh: hearing of a publish, and reading ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ducto.errors import StoreError
from ducto.manager import CreditManager, live_pricing
from ducto.stores.memory import MemoryStore

DEAR = {"models": {"m": {"unit": "credits", "input": 10_000_000}}}
CHEAP = {"models": {"m": {"unit": "credits", "input": 1_000_000}}}


class HearingStore(MemoryStore):
    """Tells of a publish when the test says so, counts reads of the pricing, and lets them wait."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Callable[[str | None], None]] = []
        self.reads = 0
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.fails = False

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        self.heard.append(heard)
        return lambda: self.heard.remove(heard)

    async def get_active_pricing(self) -> Any:
        found = await super().get_active_pricing()
        self.reads += 1
        await self.may_read.wait()
        if self.fails:
            raise StoreError("Gone.", retryable=True)
        return found

    def tell(self, version: str | None) -> None:
        for heard in list(self.heard):
            heard(version)


async def version(manager: CreditManager) -> str | None:
    return (await manager.pricing()).version


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("told", ["2", None])
async def test_what_is_heard_of_is_read_before_the_next_use(told: str | None) -> None:
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        assert await version(manager) == "1"
        await store.set_active_pricing(CHEAP)
        assert await version(manager) == "1"
        store.tell(told)
        assert await version(manager) == "2"


async def test_what_is_heard_of_is_read_though_nobody_asks() -> None:
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        await manager.pricing()
        await store.set_active_pricing(CHEAP)
        store.tell("2")
        await until(lambda: store.reads == 2)
        store.may_read.clear()  # A call that had to read would wait for ever.
        async with asyncio.timeout(5):
            assert await version(manager) == "2"


async def test_a_read_that_began_before_the_news_is_done_again() -> None:
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        store.may_read.clear()
        reading = asyncio.ensure_future(version(manager))
        await until(lambda: store.reads == 1)
        await store.set_active_pricing(CHEAP)
        store.tell("2")
        store.may_read.set()
        await reading
        assert await version(manager) == "2"
        await until(lambda: store.reads == 2)


async def test_news_while_news_are_being_read_are_read_too() -> None:
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        await manager.pricing()
        store.may_read.clear()
        store.tell("1")
        await until(lambda: store.reads == 2)
        await store.set_active_pricing(CHEAP)
        store.tell("2")
        store.may_read.set()
        await until(lambda: store.reads == 3)
        store.may_read.clear()
        async with asyncio.timeout(5):
            assert await version(manager) == "2"


async def test_a_manager_in_use_reads_ahead_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pricing, "READ_AHEAD", 0.0)
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        await manager.pricing()
        await store.set_active_pricing(CHEAP)
        store.may_read.clear()
        async with asyncio.timeout(5):
            assert await version(manager) == "1"  # Still good, and being read again.
        await until(lambda: store.reads == 2)
        store.may_read.set()
        async with asyncio.timeout(5):
            while await version(manager) != "2":  # noqa: ASYNC110 - as calls would find it
                await asyncio.sleep(0.01)


async def test_a_failed_read_in_the_background_is_raised_by_the_call_that_needs_it() -> None:
    store = HearingStore()
    await store.set_active_pricing(DEAR)
    async with CreditManager(store, pricing_refresh_seconds=3600) as manager:
        await manager.pricing()
        store.fails = True
        store.tell("2")
        await until(lambda: store.reads == 2)
        with pytest.raises(StoreError):
            await manager.pricing()
        store.fails = False
        assert await version(manager) == "1"


async def test_a_closed_manager_hears_no_more() -> None:
    store = HearingStore()
    async with CreditManager(store) as manager:
        assert len(store.heard) == 1
        store.tell(None)  # Nothing was read yet: there is nothing to read again.
        await asyncio.sleep(0)
        assert store.reads == 0
        with pytest.raises(Exception, match="No pricing config"):
            await manager.pricing()
        await store.set_active_pricing(DEAR)
        store.may_read.clear()
        store.tell("1")
        await until(lambda: store.reads == 2)
    assert store.heard == []


def test_a_manager_that_goes_on_in_another_loop_hears_once() -> None:
    store = HearingStore()
    manager = CreditManager(store, maintain_every_seconds=None)
    for _ in range(2):
        asyncio.run(manager.setup())
        assert len(store.heard) == 1
    manager.close()
