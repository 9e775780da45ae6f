"""Clocks that jump and calendars with odd days: windows are those of UTC, and an account's time never goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.models import CapType, SpendCap
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.clock import ManualClock
from ducto.testing.harness import ManualClockHarness
from tests.conformance.sql_harness import SqlHarness, migrated_database

#: An instant, the cap whose window it ends, and the seconds to the next window. Summer time changes nothing.
BOUNDARIES: list[tuple[str, CapType, bool]] = [
    ("2028-02-28T23:59:59", "daily", True),  # the 29th follows in a leap year
    ("2028-02-28T23:59:59", "monthly", False),
    ("2028-02-29T23:59:59", "monthly", True),
    ("2027-02-28T23:59:59", "monthly", True),
    ("2027-12-31T23:59:59", "monthly", True),
    ("2027-12-31T23:59:59", "hourly", True),
    ("2027-03-28T00:59:59", "hourly", True),  # Berlin goes from 2:00 to 3:00
    ("2027-03-28T00:59:59", "daily", False),
    ("2027-10-31T00:59:59", "hourly", True),  # Berlin has 2:00 twice
    ("2027-10-30T22:59:59", "daily", False),  # its midnight is not that of UTC
    ("2027-10-31T23:59:59", "daily", True),
]


#: A harness, and what its clock is set by.
Books = tuple[ManualClockHarness, ManualClock] | tuple[SqlHarness, SqlHarness]


@pytest.fixture(scope="module", params=["memory", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def harness(kind: str) -> AsyncIterator[Books]:
    if kind == "memory":
        clock = ManualClock()
        async with MemoryStore(clock=clock) as store:
            yield ManualClockHarness(store, clock), clock
        return
    async with migrated_database("new") as database:
        connection = await asyncpg.connect(database.superuser_url)
        await connection.execute(f"ALTER DATABASE {database.name} SET timezone = 'Europe/Berlin'")
        await connection.close()
        async with PostgresStore(database.url) as store:
            sql = SqlHarness(store, database)
            yield sql, sql


async def test_windows_are_those_of_utc(harness: Books) -> None:
    books, clock = harness
    store = books.store
    for number, (instant, window, turns) in enumerate(BOUNDARIES):
        user = f"user-{number}"
        await set_clock(clock, datetime.fromisoformat(instant).replace(tzinfo=UTC))
        await store.add_credits(user, 100)
        await store.set_spend_cap(SpendCap(user_id=user, cap_type=window, limit=10, action="deny"))
        assert (await store.charge_credits(user, 10)).ok
        assert (await store.charge_credits(user, 1)).error == "cap_reached"
        await books.advance(1)
        assert (await store.charge_credits(user, 1)).ok == turns, (instant, window)
    assert (await store.verify()).ok


async def set_clock(clock: ManualClock | SqlHarness, at: datetime) -> None:
    if isinstance(clock, SqlHarness):
        await clock.clock.freeze(at)
    else:
        clock.advance((at - clock()).total_seconds())


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_an_hour_reopens_no_window(harness: Books, hours: int) -> None:
    books, clock = harness
    store = books.store
    await set_clock(clock, datetime(2028, 1, 1, 0, 30, tzinfo=UTC))
    await store.add_credits("alice", 100)
    await store.set_spend_cap(SpendCap(user_id="alice", cap_type="daily", limit=10, action="deny"))
    held = await store.reserve_credits("alice", 5, "chat", min_balance=0)
    assert (await store.charge_credits("alice", 5)).ok
    step = timedelta(hours=hours).total_seconds()
    await (books.advance(step) if step > 0 else books.step_back(-step))
    # Back in the year before by the clock, which for this account goes on from where it was.
    assert (await store.charge_credits("alice", 6)).error == "cap_reached"
    settled = await store.deduct_credits("alice", held.reservation_id or "", 5)
    assert (settled.ok, settled.late) == (True, hours > 0)
    rows = (await store.list_transactions("alice")).transactions
    assert [row.created_at for row in rows] == sorted((row.created_at for row in rows), reverse=True)
    assert (await store.verify()).ok
