"""What is due, looked at late or by a clock that steps back: cases that are easy to get wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from ducto.models import SpendCap
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def test_a_grant_held_whole_expires_with_the_first_look_after_its_hold_ended(
    store: MemoryStore, clock: ManualClock
) -> None:
    await store.add_credits("ann", 100, "grant", expires_at=clock() + timedelta(seconds=1000))
    await store.reserve_credits("ann", 100, "chat", min_balance=0, ttl_seconds=600, grace_seconds=60)
    clock.advance(2000)
    assert (await store.get_balance("ann")).balance == 0
    assert (await store.reserve_credits("ann", 1, "chat", min_balance=0)).error == "insufficient_credits"
    swept = await store.sweep_expired_credits()
    assert (swept.grants, swept.amount) == (1, 100)


async def test_a_look_at_a_cap_does_not_lose_its_window_to_a_clock_that_steps_back(
    store: MemoryStore, clock: ManualClock
) -> None:
    clock.advance(59 * 60)
    await store.add_credits("ann", 100)
    await store.set_spend_cap(SpendCap(user_id="ann", cap_type="hourly", limit=10))
    await store.charge_credits("ann", 10)
    clock.advance(120)
    assert (await store.check_spend_cap("ann")).spent == 0
    clock.advance(-120)
    assert (await store.check_spend_cap("ann")).spent == 10
    assert (await store.charge_credits("ann", 1)).error == "cap_reached"


async def test_a_reservation_that_nobody_has_looked_at_since_is_pruned_all_the_same(
    store: MemoryStore, clock: ManualClock
) -> None:
    await store.add_credits("ann", 100)
    held = await store.reserve_credits("ann", 10, "chat", idempotency_key="k")
    clock.advance(31 * 86_400)
    assert await store.prune_reservations() == 1
    assert (await store.deduct_credits("ann", str(held.reservation_id), 5)).error == "reservation_not_found"
    assert not (await store.reserve_credits("ann", 10, "chat", idempotency_key="k")).replayed
    assert (await store.verify()).ok


async def test_add_and_adjust_may_share_a_key(store: MemoryStore) -> None:
    await store.add_credits("ann", 5, idempotency_key="k")
    await store.adjust_credits("ann", 5, direction="credit", idempotency_key="k")
    assert (await store.verify()).ok


async def test_the_cursor_before_the_first_row_lists_nothing(store: MemoryStore) -> None:
    await store.add_credits("ann", 5)
    await store.add_credits("ann", 5)
    assert (await store.list_transactions("ann", cursor="0")).transactions == ()


async def test_an_empty_window_at_the_edge_of_time_has_no_days(store: MemoryStore, clock: ManualClock) -> None:
    edge = datetime.min.replace(tzinfo=clock().tzinfo)
    assert (await store.aggregate_stats(edge, edge)).avg_daily_spend == 0
