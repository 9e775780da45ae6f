"""Calls that are admitted while the store does not answer: so many and no more, and charged when it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ducto.errors import ArgumentError, ConfigError, InsufficientCreditsError, StoreError
from ducto.journal import SettleJournal
from ducto.manager import CreditManager, FailOpen
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database
from tests.journal.support import LastingStore, managed, outstanding
from tests.unit.manager_support import PRICING, Heard, usage

BOUND = 1_000
COST = 30
ESTIMATE = 50


async def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - the journal tells nobody
            await asyncio.sleep(0.02)


async def test_a_hundred_calls_at_once_without_a_store(mortal: Database, folder: Path) -> None:
    """Two users: each has what the bound allows, in all what both may have, and all of it is charged once."""
    journal = SettleJournal(folder, replay_every_seconds=0.2)
    fail_open = FailOpen(credits_per_user=BOUND, credits_in_all=1_500)
    async with (
        PostgresStore(mortal.url) as store,
        CreditManager(store, maintain_every_seconds=None, journal=journal, fail_open=fail_open) as manager,
    ):
        heard = Heard(manager)
        await manager.publish_pricing(PRICING)
        for user in ("alice", "bob"):
            await manager.add_credits(user, 10_000)
        await manager.price(usage(1))
        mortal.server.process.kill_family()

        decided = asyncio.Barrier(100)

        async def call(number: int) -> str:
            user = "alice" if number % 3 else "bob"
            try:
                async with manager.meter(user, estimate=usage(ESTIMATE // 10)) as metered:
                    await decided.wait()
                    assert metered.offline
                    assert metered.reservation.held == 0
                    metered.record(usage(COST // 10))
            except StoreError:
                await decided.wait()
                return ""
            assert metered.settle_error is None
            return user

        admitted = [user for user in await asyncio.gather(*(call(number) for number in range(100))) if user]
        assert len(admitted) == 1_500 // ESTIMATE
        assert max(admitted.count("alice"), admitted.count("bob")) <= BOUND // ESTIMATE
        assert len(outstanding(folder, store.books_name or "")) == len(admitted)
        names = await heard.names()
        assert names.count("admitted_offline") == len(admitted)
        with pytest.raises(StoreError):
            await manager.meter("alice", estimate=500).start()

        await asyncio.to_thread(mortal.server.start)
        await eventually(lambda: not outstanding(folder, store.books_name or ""))
        for user in ("alice", "bob"):
            rows = (await store.list_transactions(user, limit=1000)).transactions
            charges = [row for row in rows if row.type == "charge"]
            assert [row.amount for row in charges] == [-COST] * admitted.count(user)
            assert {row.forced for row in charges} == {True}
            assert charges[0].usage == usage(COST // 10)
            assert (await store.get_available(user)).held == 0
        assert (await store.verify()).ok
        # What was booked counts no more, and calls are admitted by the store again.
        async with manager.meter("alice", estimate=500) as metered:
            assert not metered.offline
            metered.record(1)


def fragile(store: LastingStore, folder: Path, **options: Any) -> Any:
    return managed(store, folder, fail_open=FailOpen(credits_per_user=BOUND), **options)


async def test_how_many_at_once_is_counted_by_their_estimates(folder: Path) -> None:
    store = LastingStore()
    async with fragile(store, folder) as manager:
        await manager.get_balance("u")
        store.fail = 10**9
        calls = [manager.meter("u", estimate=ESTIMATE) for _ in range(100)]
        started = await asyncio.gather(*(call.start() for call in calls), return_exceptions=True)
        admitted = [call for call, one in zip(calls, started, strict=True) if not isinstance(one, BaseException)]
        assert len(admitted) == BOUND // ESTIMATE
        await admitted[0].release()
        await manager.meter("u", estimate=ESTIMATE).start()
        with pytest.raises(StoreError):
            await manager.meter("u", estimate=1).start()
        result = await admitted[1].settle(COST)
        assert (result.transaction_id, result.amount) == (None, COST)
        await manager.meter("u", estimate=ESTIMATE - COST).start()
        with pytest.raises(StoreError):
            await manager.meter("u", estimate=1).start()


async def test_who_leaves_before_he_is_admitted_takes_nothing(folder: Path) -> None:
    store = LastingStore()
    async with fragile(store, folder) as manager:
        await manager.get_balance("u")
        store.fail = 10**9
        waiting = [asyncio.ensure_future(manager.meter("u", estimate=BOUND).start()) for _ in range(3)]
        await asyncio.sleep(0.05)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        await asyncio.sleep(0.6)
        await manager.meter("u", estimate=BOUND).start()


async def test_what_only_the_store_can_tell_is_refused_without_it(folder: Path) -> None:
    store = LastingStore()
    async with fragile(store, folder) as manager:
        await manager.get_balance("u")
        store.fail = 10**9
        for terms in ({"idempotency_key": "k"}, {"feature": "f"}):
            with pytest.raises(StoreError):
                await manager.meter("u", estimate=1, **terms).start()
        with pytest.raises(StoreError):
            await manager.reserve("u", 1)
        for wrong in ("", " padded"):
            with pytest.raises((ArgumentError, StoreError)):
                await manager.meter(wrong, estimate=1).start()
        with pytest.raises((ArgumentError, StoreError)):
            await manager.meter("u", estimate=-1).start()


async def test_prices_that_were_never_read_admit_nothing(mortal: Database, folder: Path) -> None:
    async with PostgresStore(mortal.url) as store:
        await store.set_active_pricing(PRICING)
    mortal.server.process.kill_family()
    try:
        async with (
            PostgresStore(mortal.url) as store,
            CreditManager(store, journal=folder, fail_open=FailOpen(credits_per_user=BOUND)) as manager,
        ):
            with pytest.raises(StoreError):
                await manager.meter("u", estimate=usage(1)).start()
    finally:
        await asyncio.to_thread(mortal.server.start)


async def test_a_lock_or_a_refusal_is_no_outage(folder: Path) -> None:
    class Locked(LastingStore):
        async def reserve_credits(self, *args: Any, **kwargs: Any) -> Any:
            raise StoreError("locked", retryable=True, busy=True)

    async with fragile(Locked(), folder) as manager:
        with pytest.raises(StoreError, match="locked"):
            await manager.meter("u", estimate=1).start()
    async with fragile(LastingStore(), folder) as manager:
        with pytest.raises(InsufficientCreditsError):
            await manager.meter("u", estimate=100).start()


async def test_a_cost_far_above_the_estimate_is_cut(folder: Path) -> None:
    store = LastingStore()
    async with fragile(store, folder) as manager:
        await manager.get_balance("u")
        store.fail = 10**9
        call = manager.meter("u", estimate=10, max_settle=40)
        await call.start()
        result = await call.settle(1_000)
        assert (result.amount, result.unbilled, result.suspect) == (40, 960, True)


async def test_what_the_journal_cannot_take_is_asked_of_the_store_and_nobody_else_is_admitted(folder: Path) -> None:
    store = LastingStore()
    settings = SettleJournal(folder, max_bytes=4096)
    async with fragile(store, folder, journal=settings) as manager:
        heard = Heard(manager)
        await manager.get_balance("u")
        store.fail = 10**9
        first, second = manager.meter("u", estimate=10, metadata={"long": "x" * 8000}), manager.meter("u", estimate=10)
        await first.start()
        await second.start()
        store.fail = 1
        result = await first.settle(5)
        assert result.transaction_id is not None
        assert (await heard.names()).count("journal.failing") == 1
        assert (await manager.get_balance("u")).balance == -5
        store.fail = 10**9
        with pytest.raises(StoreError):
            await manager.meter("u", estimate=1).start()
        store.fail = 0
        assert (await second.settle(5)).transaction_id is None


def test_it_needs_a_journal_and_whole_numbers() -> None:
    with pytest.raises(ConfigError, match="needs a journal"):
        CreditManager(MemoryStore(), fail_open=FailOpen(credits_per_user=1))
    for wrong in ({"credits_per_user": 0}, {"credits_per_user": 1.5}, {"credits_per_user": 1, "credits_in_all": 0}):
        with pytest.raises(ConfigError, match="whole number"):
            FailOpen(**wrong)  # type: ignore[arg-type]
    assert FailOpen(credits_per_user=7).bound_in_all == 700
