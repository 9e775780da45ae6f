"""Processes are killed where it hurts most; the next one charges what they owed, once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database, new_database, postgres_server
from tests.journal.support import contents, put_aside
from tests.journal.worker import COST, USER

CALLS = 20


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with new_database(postgres_server()) as made:
        assert (await migrate(made.url)).success
        async with PostgresStore(made.url) as store:
            await store.add_credits(USER, 100_000)
        yield made


async def start(database: Database, folder: Path, point: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.journal.worker", database.url, str(folder), point, str(CALLS), stdout=-1
    )


async def until_it_hangs(worker: asyncio.subprocess.Process, *, times: int) -> None:
    assert worker.stdout is not None
    async with asyncio.timeout(30):
        for _ in range(times):
            assert await worker.stdout.readline() == b"hangs\n"


async def replayed(database: Database, folder: Path, *, workers: int) -> None:
    started = [await start(database, folder, "replay") for _ in range(workers)]
    async with asyncio.timeout(30):
        said = [(await one.communicate())[0] for one in started]
    assert said == [b"done\n"] * workers


async def charges(database: Database) -> Counter[str | None]:
    """How often each reservation was charged; the books agree."""
    async with PostgresStore(database.url) as store:
        assert (await store.verify()).ok
        rows = (await store.list_transactions(USER, limit=1000)).transactions
        found = Counter(row.reservation_id for row in rows if row.type == "deduction")
        assert {row.amount for row in rows if row.type == "deduction"} <= {-COST}
        assert (await store.get_balance(USER)).balance == 100_000 - COST * found.total()
        return found


@pytest.mark.parametrize(
    ("point", "hangs", "charged"),
    [("journal written", CALLS, CALLS), ("deducted", CALLS, CALLS), ("within the write", 1, None)],
)
@pytest.mark.parametrize("workers", [1, 2])
async def test_what_a_killed_process_owed_is_charged_once(
    database: Database, folder: Path, point: str, hangs: int, charged: int | None, workers: int
) -> None:
    worker = await start(database, folder, point)
    await until_it_hangs(worker, times=hangs)
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    async with PostgresStore(database.url) as store:
        books = store.books_name
    (left,) = contents(folder, books or "")
    # Of the records in the write that was cut off all but the last are whole, though nobody was told so.
    expected = len(left.records) if charged is None else charged
    assert len(left.records) == expected > 0
    assert (left.torn != b"") == (charged is None)
    await replayed(database, folder, workers=workers)
    found = await charges(database)
    assert (len(found), found.total()) == (expected, expected)
    assert put_aside(folder, "*") == []


async def test_a_process_that_is_killed_while_it_replays_loses_nothing(database: Database, folder: Path) -> None:
    worker = await start(database, folder, "journal written")
    await until_it_hangs(worker, times=CALLS)
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    for _ in range(4):
        replaying = await start(database, folder, "replay")
        await asyncio.sleep(0.35)
        if replaying.returncode is None:
            replaying.send_signal(signal.SIGKILL)
        await replaying.wait()
    await replayed(database, folder, workers=2)
    found = await charges(database)
    assert (len(found), found.total()) == (CALLS, CALLS)


async def test_a_process_that_is_stopped_keeps_its_records_to_itself(database: Database, folder: Path) -> None:
    """It may go on at any moment: until its death nobody else charges for it."""
    worker = await start(database, folder, "journal written")
    await until_it_hangs(worker, times=CALLS)
    worker.send_signal(signal.SIGSTOP)
    replaying = await start(database, folder, "replay")
    await asyncio.sleep(1.0)
    assert (await charges(database)).total() == 0
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    async with asyncio.timeout(30):
        assert (await replaying.communicate())[0] == b"done\n"
    assert (await charges(database)).total() == CALLS
