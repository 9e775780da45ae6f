"""Spend reports are exact whatever has been rolled up, and whenever: compared with plain sums over the rows."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import ArgumentError
from ducto.manager import CreditManager
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.conformance import ALL_CHECKS, analytics, run_check
from ducto.testing.servers import Database, Version
from tests.conformance.sql_harness import SQL_STORES, SqlClock, migrated_database

REPORT_CHECKS = sorted(name for name in vars(analytics) if name in ALL_CHECKS and ("spend" in name or "report" in name))
START = datetime(2026, 3, 27, 22, 30, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(6)]
MODELS = ("small", "large", None)

#: What each report is made of, as plain sums over the rows of the window.
_SUMS = """
SELECT {key} AS key, sum(spent)::bigint AS total_spend, sum(transactions) AS transaction_count,
    sum(refunded)::bigint AS refunded
FROM ducto.spends WHERE created_at >= $1 AND created_at < $2 GROUP BY 1 ORDER BY 1 NULLS LAST
"""
_KEYS = {
    "spend_by_user": ("user_id", "user_id"),
    "spend_by_model": ("model", "model"),
    "daily_spend": ("day", "(created_at AT TIME ZONE 'UTC')::date::text"),
}


@dataclass
class Books:
    """A store, its clock, and a connection as superuser beside it."""

    store: PostgresStore
    clock: SqlClock
    database: Database
    admin: asyncpg.Connection[Any]

    async def charge(self, user_id: str = "ann", amount: int = 10, *, model: str | None = None) -> str:
        spent = await self.store.charge_credits(user_id, amount, force=True, model=model)
        assert spent.ok, spent
        assert spent.transaction_id is not None
        return spent.transaction_id

    async def rolled_up_completely(self) -> None:
        while await self.store.roll_up_spend():
            pass

    async def spent(self) -> dict[str, int]:
        """What the report says of everybody, over a window of whole days."""
        rows = await self.store.spend_by_user(START - timedelta(days=900), START + timedelta(days=9000))
        return {row.user_id: row.total_spend for row in rows}

    async def sound(self) -> None:
        audit = await self.store.verify()
        assert audit.ok, audit.faults


@asynccontextmanager
async def opened_books(version: Version = "new") -> AsyncIterator[Books]:
    async with migrated_database(version) as database, PostgresStore(database.url) as store:
        admin = await asyncpg.connect(database.superuser_url)
        try:
            yield Books(store, SqlClock(database.superuser_url), database, admin)
        finally:
            await admin.close()


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    async with opened_books() as opened:
        yield opened


class RollingUp:
    """Rolls up at random moments, a random number of rows at a time, while the block runs."""

    def __init__(self, store: CreditStore, chance: random.Random) -> None:
        self.store = store
        self.chance = chance
        self.rows = 0

    async def _run(self) -> None:
        while True:
            self.rows += await self.store.roll_up_spend(limit=self.chance.choice((1, 2, 3, 7, 50)))
            await asyncio.sleep(self.chance.choice((0.001, 0.005, 0.02)))

    async def __aenter__(self) -> RollingUp:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results


@pytest.mark.parametrize("name", SQL_STORES)
async def test_report_checks_hold_while_rows_are_rolled_up(name: str) -> None:
    """The checks of the conformance kit, with a roll-up at any moment between and beside their calls."""
    assert len(REPORT_CHECKS) >= 7
    async with SQL_STORES[name]() as harness:
        async with RollingUp(harness.store, random.Random(name)) as rolling:
            for check in REPORT_CHECKS:
                await run_check(ALL_CHECKS[check], harness)
        assert rolling.rows > 10
        audit = await harness.store.verify()
        assert audit.ok, audit.faults


async def traffic(books: Books, chance: random.Random, *, calls: int) -> None:
    """Charges and refunds by one caller."""
    spends: list[str] = []
    for _ in range(calls):
        if spends and chance.random() < 0.2:
            await books.store.refund_credits(chance.choice(spends), chance.choice((1, 3, None)))
        else:
            amount = chance.randrange(0, 90)
            spends.append(await books.charge(chance.choice(USERS), amount, model=chance.choice(MODELS)))


async def moments(books: Books, chance: random.Random) -> tuple[datetime, datetime]:
    """A window: from and to rows, hours, days, and anything between."""
    rows = [row[0] for row in await books.admin.fetch("SELECT created_at FROM ducto.ledger")]
    low, high = min(rows, default=START), max(rows, default=START) + timedelta(microseconds=1)

    def moment() -> datetime:
        any_time = low + chance.random() * (high - low)
        return chance.choice(
            (
                any_time,
                any_time.replace(minute=0, second=0, microsecond=0),
                any_time.replace(hour=0, minute=0, second=0, microsecond=0),
                chance.choice(rows) if rows else START,
                low - timedelta(days=1),
                high,
                high + timedelta(days=2),  # So that the last day is a whole one.
            )
        )

    first, last = sorted((moment(), moment()))
    return first, last


async def compare(books: Books, chance: random.Random) -> None:
    """All reports for one window, in one snapshot with the plain sums."""
    start, end = await moments(books, chance)
    async with books.admin.transaction(isolation="repeatable_read", readonly=True):
        for report, (field, key) in _KEYS.items():
            expected = [dict(row) for row in await books.admin.fetch(_SUMS.format(key=key), start, end)]
            answer = json.loads(await books.admin.fetchval(f"SELECT ducto_{report}($1, $2)", start, end))
            found = [{"key": row.pop(field), **row} for row in answer["rows"]]
            assert found == expected, f"{report} from {start} to {end}"
            if report == "spend_by_user":
                users = [row for row in expected if row["transaction_count"]]
        users.sort(key=lambda row: (-row["total_spend"], row["key"]))
        top = json.loads(await books.admin.fetchval("SELECT ducto_top_users(3, $1, $2)", start, end))["rows"]
        assert [(row["user_id"], row["total_spend"]) for row in top] == [
            (row["key"], row["total_spend"]) for row in users[:3]
        ]
        stats = json.loads(await books.admin.fetchval("SELECT ducto_aggregate_stats($1, $2)", start, end))
        assert (stats["active_users"], stats["total_spend"], stats["transaction_count"], stats["top_user"]) == (
            len(users),
            sum(row["total_spend"] for row in users),
            sum(row["transaction_count"] for row in users),
            users[0]["key"] if users else None,
        )


@pytest.mark.parametrize("version", ["new", "old"])
async def test_reports_equal_the_rows_under_traffic_and_roll_ups(version: Version) -> None:
    """Callers charge and refund, two sessions roll up, the clock moves over days (and back), and somebody reads."""
    chance = random.Random(version)
    async with opened_books(version) as books:
        await books.clock.freeze(START)
        async with RollingUp(books.store, chance) as one, RollingUp(books.store, chance) as other:
            for step in range(8):
                callers = [asyncio.ensure_future(traffic(books, chance, calls=12)) for _ in range(4)]
                while not all(caller.done() for caller in callers):
                    await compare(books, chance)
                await asyncio.gather(*callers)
                await books.clock.advance(chance.choice((60, 3600, 86_400, 40_000)) if step != 4 else -100_000)
            await asyncio.sleep(0.1)
            for _ in range(10):
                await compare(books, chance)
        assert one.rows + other.rows > 200
        await books.rolled_up_completely()
        await books.sound()
        for _ in range(30):
            await compare(books, chance)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu"])
async def test_days_and_hours_are_those_of_utc_whatever_the_session_says(books: Books, zone: str) -> None:
    """In Berlin the clocks are put forward on the 29th; in Kathmandu an hour begins a quarter past that of UTC."""
    chance = random.Random(zone)
    await books.admin.execute(f"SET TIME ZONE '{zone}'")
    await books.clock.freeze(START)
    for _ in range(70):
        await books.charge(chance.choice(USERS), chance.randrange(1, 90), model=chance.choice(MODELS))
        await books.clock.advance(47 * 60)
    assert json.loads(await books.admin.fetchval("SELECT public.ducto_roll_up()")) == {"value": 70}
    await books.sound()
    for _ in range(60):
        await compare(books, chance)


async def test_what_is_rolled_up_is_read_from_the_sums(books: Books) -> None:
    """Else they would be quick for nothing: a planted sum shows up, save where single rows are read."""
    await books.clock.freeze(START)
    await books.charge()
    await books.rolled_up_completely()
    await books.admin.execute("UPDATE ducto.user_days SET spent = 7; UPDATE ducto.model_hours SET spent = 5")
    assert await books.spent() == {"ann": 7}
    day = START.replace(hour=0, minute=0)
    by_model = await books.store.spend_by_model(day, day + timedelta(days=1))
    assert [row.total_spend for row in by_model] == [5]
    by_user = await books.store.spend_by_user(START, START + timedelta(minutes=1))
    assert [row.total_spend for row in by_user] == [10]


async def test_a_late_commit_is_counted_once(books: Books) -> None:
    """A transaction that began before others were rolled up, and commits after."""
    late = await asyncpg.connect(books.database.superuser_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        item = json.dumps([{"user_id": "late", "amount": 5, "operation_type": "chat", "force": True}])
        assert "transaction_id" in await late.fetchval("SELECT public.ducto_charge($1)", item)
        await books.charge("ann")
        await books.rolled_up_completely()
        assert await books.spent() == {"ann": 10}
        await transaction.commit()
    finally:
        await late.close()
    assert await books.spent() == {"ann": 10, "late": 5}
    await books.rolled_up_completely()
    assert await books.spent() == {"ann": 10, "late": 5}
    assert await books.admin.fetchval("SELECT count(*) FROM ducto.user_days") == 2
    await books.sound()


async def test_bookings_and_other_roll_ups_do_not_wait_for_a_roll_up(books: Books) -> None:
    await books.charge()
    other = await asyncpg.connect(books.database.superuser_url)
    try:
        async with other.transaction():
            assert json.loads(await other.fetchval("SELECT public.ducto_roll_up()")) == {"value": 1}
            assert await books.store.roll_up_spend() == 0
            await asyncio.wait_for(books.charge(), timeout=1)
            assert await books.spent() == {"ann": 20}
    finally:
        await other.close()
    assert await books.spent() == {"ann": 20}
    assert await books.store.roll_up_spend() == 1
    assert await books.spent() == {"ann": 20}


async def test_a_call_rolls_up_the_limit_and_never_part_of_a_transaction(books: Books) -> None:
    items = [{"user_id": user, "amount": 1, "operation_type": "chat", "force": True} for user in USERS[:5]]
    await books.admin.fetchval("SELECT public.ducto_charge($1)", json.dumps(items))
    for _ in range(4):
        await books.charge()
    assert [await books.store.roll_up_spend(limit=limit) for limit in (1, 3, 10, 10)] == [5, 3, 1, 0]
    await books.sound()
    for limit in (0, -1, True, 1_000_001):
        for store in (books.store, MemoryStore()):
            with pytest.raises(ArgumentError):
                await store.roll_up_spend(limit=limit)
    refused = json.loads(await books.admin.fetchval("SELECT public.ducto_roll_up(0)"))
    assert refused["error"] == "invalid_argument"


#: What a dump that was restored elsewhere leaves: there, transactions are counted by another server.
MOVES = (
    "UPDATE ducto.rolled_up SET server = server + 1",
    "UPDATE ducto.rolled_up SET through = '9000000000'",
    "DELETE FROM ducto.rolled_up",
)


async def test_sums_of_another_server_are_not_used_and_are_made_anew(books: Books) -> None:
    total = 0
    for moved in MOVES:
        await books.charge()
        await books.rolled_up_completely()
        await books.admin.execute(moved)
        await books.admin.execute("UPDATE ducto.user_days SET spent = 7")
        await books.charge()
        total += 20
        assert await books.spent() == {"ann": total}, moved
        await books.sound()
        await books.rolled_up_completely()
        assert await books.admin.fetchval("SELECT spent FROM ducto.user_days") == total, moved
        assert await books.spent() == {"ann": total}
        await books.sound()


async def test_sums_may_pass_what_a_row_can_hold(books: Books) -> None:
    most = 2**53 - 1
    await books.charge(amount=1)
    names = [
        row[0]
        for row in await books.admin.fetch(
            "SELECT attname::text FROM pg_attribute WHERE attnum > 0 AND attrelid = 'ducto.ledger'::regclass"
        )
    ]
    changed = {"sequence": "n", "key": "NULL", "charged": f"{most}", "actual": f"{most}"}
    values = ", ".join(changed.get(name, f'l."{name}"') for name in names)
    await books.admin.execute("SET session_replication_role = replica")
    await books.admin.execute(
        f"INSERT INTO ducto.ledger SELECT {values} FROM ducto.ledger AS l, generate_series(2, 1101) AS n"
    )
    for _ in range(2):
        assert await books.spent() == {"ann": 1 + 1100 * most}
        await books.rolled_up_completely()
    assert await books.admin.fetchval("SELECT spent FROM ducto.user_days") == 1 + 1100 * most


#: A fault of a sum, and the statement that plants it.
FAULTS = (
    ("user_day", "UPDATE ducto.user_days SET spent = spent + 1"),
    ("user_day", "UPDATE ducto.user_days SET day = day + interval '24 hours'"),
    ("user_day", "DELETE FROM ducto.user_days"),
    ("model_hour", "UPDATE ducto.model_hours SET transactions = transactions - 1"),
    ("model_hour", "UPDATE ducto.model_hours SET refunded = 1"),
    ("model_hour", "INSERT INTO ducto.model_hours SELECT hour, 'other', 1, 0, 1 FROM ducto.model_hours"),
)


async def test_verify_finds_each_sum_that_is_not_that_of_the_rows(books: Books) -> None:
    await books.charge(model="small")
    await books.rolled_up_completely()
    await books.charge(model="small")
    await books.sound()
    for invariant, statement in FAULTS:
        transaction = books.admin.transaction()
        await transaction.start()
        await books.admin.execute(statement)
        answer = json.loads(await books.admin.fetchval("SELECT public.ducto_verify_totals()"))
        await transaction.rollback()
        assert {fault["invariant"].partition("[")[0] for fault in answer["faults"]} == {invariant}, statement
    await books.sound()


async def test_maintenance_rolls_up(books: Books) -> None:
    await books.charge()
    await books.charge()
    async with CreditManager(books.store, maintain_every_seconds=None) as manager:
        assert (await manager.maintain()).rows_rolled_up == 2
        assert (await manager.maintain()).rows_rolled_up == 0
    assert await books.spent() == {"ann": 20}
