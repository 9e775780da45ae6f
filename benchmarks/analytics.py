"""Spend reports on a large ledger: rows of many users and models over many days, rolled up as maintenance does it.

One server without `fsync`, which only the filling would wait for. The rows are charges in the order of time, as
gateways write them, ten thousand in a transaction; after them, some that are not rolled up yet. Each report is asked
for several windows, through the store, over the whole history and over a week, and its best and median time printed
beside the aim.

Run it with `python -m benchmarks.analytics --rows 10000000`: that takes minutes and about 6 GB. The default is a tenth.
`python -m benchmarks --large` takes the ten million too.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from benchmarks.figures import Effort, Figure, Section, about, add_effort, compare, effort_of, figure, show
from ducto.export import export_transactions
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database, new_database, postgres_server

USERS = 10_000
MODELS = 50
DAYS = 90
ROWS_OF_A_TRANSACTION = 10_000
#: What comes after the last roll-up: a minute of a busy gateway.
ROWS_NOT_ROLLED_UP = 10_000
ROUNDS = 5
#: Rows in a large run, in any other, and where it only shows that everything runs.
LARGE, USUAL, QUICK = 10_000_000, 1_000_000, 20_000
#: What we mean to reach with ten million rows.
AIM_MS = 1000

_START = datetime(2026, 1, 1, tzinfo=UTC)

#: Charges number $1 to $2. Every user is charged once in each round of all users, in an order that jumps about.
_FILL = f"""
INSERT INTO ducto.ledger (account_kind, account_id, user_id, sequence, event, xid, type, operation, operation_type,
    amount, actual, charged, base_delta, balance_after, available_after, model, pricing_version, usage, booked_at,
    created_at)
SELECT 'u', u.id, u.id, n / {USERS} + 1, n / {USERS} + 1, pg_current_xact_id(), 'charge', 'charge', 'chat',
    -c.credits, c.credits, c.credits, -c.credits, 1000000, 1000000, 'model-' || n * 7919 / 13 % {MODELS}, '1',
    '{{"input_tokens": 812, "output_tokens": 304, "cache_read_tokens": 128}}', t.at, t.at
FROM generate_series($1::bigint, $2::bigint) AS n
CROSS JOIN LATERAL (SELECT 'user-' || n * 7919 % {USERS} AS id) AS u
CROSS JOIN LATERAL (SELECT 100 + n * 31 % 900 AS credits) AS c
CROSS JOIN LATERAL (SELECT $3::timestamptz + n * $4::interval AS at) AS t
"""

Report = Callable[[datetime, datetime], Awaitable[Any]]


async def _append(connection: asyncpg.Connection[Any], first: int, last: int, *, step: timedelta) -> None:
    for start in range(first, last, ROWS_OF_A_TRANSACTION):
        await connection.execute(_FILL, start, min(start + ROWS_OF_A_TRANSACTION, last) - 1, _START, step)


@asynccontextmanager
async def filled_database(rows: int) -> AsyncIterator[Database]:
    """A database with so many charges over `DAYS` days."""
    async with new_database(postgres_server("new"), plain_owner=True) as database:
        result = await migrate(database.url)
        assert result.success, result.errors
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute("ALTER TABLE ducto.ledger DROP CONSTRAINT ledger_pkey")
            await _append(connection, 0, rows, step=timedelta(days=DAYS) / rows)
            await connection.execute(
                "ALTER TABLE ducto.ledger ADD PRIMARY KEY (account_kind, account_id, sequence)", timeout=600
            )
            await connection.execute("VACUUM ANALYZE ducto.ledger", timeout=600)
        finally:
            await connection.close()
        yield database


async def roll_up(store: PostgresStore) -> int:
    """Roll up to the end, as maintenance does; how many rows."""
    total = 0
    while rolled := await store.roll_up_spend():
        total += rolled
    return total


async def _timed(report: Report, start: datetime, end: datetime) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await report(start, end)
        times.append((time.perf_counter() - begun) * 1000)
    return sorted(times)


async def time_reports(store: PostgresStore, *, end: datetime) -> list[Figure]:
    """All reports for all windows, in milliseconds."""

    async def top_users(start: datetime, end: datetime) -> Any:
        return await store.top_users(10, start, end)

    reports: dict[str, Report] = {
        "spend_by_user": store.spend_by_user,
        "spend_by_model": store.spend_by_model,
        "top_users": top_users,
        "daily_spend": store.daily_spend,
        "aggregate_stats": store.aggregate_stats,
    }
    # With ragged ends, most of a day has to be read row by row at both of them.
    windows = {
        "everything": (_START, end + timedelta(days=1)),
        "ragged ends": (_START + timedelta(minutes=1), end - timedelta(hours=3)),
        "ragged week": (end - timedelta(days=7, hours=11), end),
        "twelve hours": (end - timedelta(hours=12), end),
    }
    return [
        figure(f"{name}, {window}", await _timed(report, first, last), unit="ms")
        for name, report in reports.items()
        for window, (first, last) in windows.items()
    ]


async def _add_rows_not_rolled_up(database: Database, *, rows: int, step: timedelta) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        # As autovacuum does it by and by.
        await connection.execute("VACUUM ANALYZE ducto.user_days, ducto.model_hours", timeout=600)
        await _append(connection, rows, rows + ROWS_NOT_ROLLED_UP, step=step)
        await connection.execute("CHECKPOINT", timeout=600)  # So that no report waits for what filling wrote.
    finally:
        await connection.close()


async def measure_rows(rows: int) -> Section:
    """Fill, roll up, and ask."""
    begun = time.perf_counter()
    async with filled_database(rows) as database:
        beside = [figure(f"filling {rows:,} rows", time.perf_counter() - begun, unit="s")]
        async with PostgresStore(database.url) as store:
            begun = time.perf_counter()
            assert await roll_up(store) == rows
            beside.append(figure(f"rolling up {rows:,} rows", time.perf_counter() - begun, unit="s"))
            step = timedelta(days=DAYS) / rows
            await _add_rows_not_rolled_up(database, rows=rows, step=step)
            end = _START + (rows + ROWS_NOT_ROLLED_UP) * step
            stats = await store.aggregate_stats(_START, end)
            assert stats.transaction_count == rows + ROWS_NOT_ROLLED_UP, stats
            reports = await time_reports(store, end=end)
            begun, exported = time.perf_counter(), 0
            async for part in export_transactions(
                store, format="csv", start=end - timedelta(days=8), end=end - timedelta(days=7)
            ):
                exported += part.rows
            beside.append(figure(f"a day as CSV, {exported:,} rows", time.perf_counter() - begun, unit="s"))
    slowest = max(reports, key=lambda each: each.value)
    what = f"the slowest report over {rows:,} ledger rows of {USERS:,} users and {MODELS} models"
    compared = [compare(what, slowest, aim=AIM_MS, better="lower")]
    return Section("Reports", about(__doc__), compared, [*reports, *beside])


def measure(effort: Effort) -> Section:
    """The time of each report."""
    return asyncio.run(measure_rows(LARGE if effort.large else QUICK if effort.quick else USUAL))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_effort(parser)
    parser.add_argument("--rows", type=int, help="ledger rows")
    chosen = parser.parse_args()
    print(show(measure(effort_of(chosen)) if chosen.rows is None else asyncio.run(measure_rows(chosen.rows))))


if __name__ == "__main__":
    main()
