"""Processes that are killed within a call, and events whose handlers never ran."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ducto.manager import CreditManager
from ducto.models import StoredEvent
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from tests.conformance.sql_harness import SqlHarness, migrated_database
from tests.faults_matrix.dying_caller import CHARGED, HELD

ROOT = Path(__file__).parents[2]
POINTS = 32
START = 1_000


@pytest.fixture
async def books() -> AsyncIterator[SqlHarness]:
    async with migrated_database("new") as database, PostgresStore(database.url) as store:
        yield SqlHarness(store, database)


async def killed_callers(books: SqlHarness) -> dict[int, list[str]]:
    """What each was told before it died."""
    command = [sys.executable, "-m", "tests.faults_matrix.dying_caller", books.database.url, str(POINTS)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = (line.split() for line in done.stdout.splitlines())
    return {int(number): said for number, *said in lines}


async def events_of(store: CreditStore, *, page: int) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    cursor = None
    while events := (read := await store.list_events(cursor, limit=page)).events:
        found += events
        cursor = read.next_cursor
    return found


async def test_a_process_that_dies_anywhere_in_a_call_leaves_sound_books_and_its_events(books: SqlHarness) -> None:
    """Holds without an end expire and free what they held; a charge is there once or not at all; events are kept."""
    store = books.store
    await asyncio.gather(*(store.add_credits(f"user-{number}", START) for number in range(POINTS)))
    told = await killed_callers(books)
    assert len(told) == POINTS
    held = [(await store.get_available(f"user-{number}")).held for number in range(POINTS)]
    await books.advance(600 + 60 + 1)
    await store.reap_expired_reservations()
    balances = [(await store.get_balance(f"user-{number}")).balance for number in range(POINTS)]
    for number, said in told.items():
        assert (await store.get_available(f"user-{number}")).held == 0
        assert balances[number] in (START, START - CHARGED)
        # What was acknowledged is there, and what still was held has not been charged.
        assert "charged" not in said or balances[number] == START - CHARGED
        assert not held[number] or (held[number], balances[number]) == (HELD, START)
    assert (await store.verify()).ok
    # The points lie in all parts of a call.
    assert any(held)
    assert {len(said) for said in told.values()} == {0, 1, 2}
    await check_events(books, expired={f"user-{number}" for number in range(POINTS) if held[number]})


async def check_events(books: SqlHarness, *, expired: set[str]) -> None:
    """No handler outlives its process; who reads by cursor misses nothing and sees nothing twice."""
    events = await events_of(books.store, page=1_000)
    assert [one.id for one in events] == [one.id for one in await events_of(books.store, page=7)]
    assert len({one.id for one in events}) == len(events)
    assert {one.user_id for one in events if one.name == "credits.reservation_expired"} == expired
    deducted = {one.user_id for one in events if one.name == "credits.deducted"}
    rows = [(await books.store.list_transactions(f"user-{number}", limit=1)).transactions for number in range(POINTS)]
    assert deducted == {row.user_id for (row,) in rows if row.type == "deduction"} != set()


async def test_a_handler_that_hangs_or_raises_does_not_keep_the_event_from_being_read(books: SqlHarness) -> None:
    over = asyncio.Event()

    async def hangs(event: object) -> None:
        await over.wait()

    def raises(event: object) -> None:
        raise RuntimeError("canary")

    async with CreditManager(books.store, maintain_every_seconds=None) as manager:
        manager.on("*", hangs)
        manager.on("*", raises)
        await manager.add_credits("alice", 100, "purchase", idempotency_key="start")
        async with asyncio.timeout(5):
            async with manager.meter("alice", estimate=20) as call:
                call.record(10)
        over.set()  # Else closing would wait for it, for a while.
    names = [one.name for one in await events_of(books.store, page=100)]
    assert {"credits.added", "credits.deducted"} <= set(names)
