"""Reserve and deduct through the SQL stores, beside the least durable transaction that the same server can do.

One server, one run: `pgbench` with one UPDATE and one INSERT in a statement, from 1, 16 and 64 clients, on 1,000 rows
and on one; then the store from this one process, with 1, 16, 256 and 1,024 callers that reserve and deduct in turn,
over 1,000 accounts and on one, and through PostgREST. `fsync` is on for all. A lone reserve and a lone statement take
turns.

Run it with `python -m benchmarks.postgres`; `--large` first fills the ledger with 10 million rows, which takes minutes.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from ducto.migrate import migrate
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import Database, new_database, postgres_server, start_postgrest
from ducto.testing.servers.databases import create_supabase_roles

ACCOUNTS = 1000
CALLERS = (1, 16, 256, 1024)
PGBENCH_CLIENTS = (1, 16, 64)
ROWS_OF_A_BULK_ACCOUNT = 1000
#: What `--large` puts into the ledger.
ROWS = 10_000_000

AIM_OF_PGBENCH = 1.2
AIM_LONE = 1.4
AIM_POSTGREST = 0.4
AIM_HOT = 3.0
AIM_FULL = 1.2

_LEAST = """
CREATE TABLE bench_accounts (id integer PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE bench_ledger (
    account integer NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    amount bigint NOT NULL,
    PRIMARY KEY (account, sequence)
);
INSERT INTO bench_accounts SELECT number, 0 FROM generate_series(1, 1000) AS number;
"""
_LEAST_STATEMENT = (
    "WITH moved AS (UPDATE bench_accounts SET balance = balance + 1 WHERE id = {account} RETURNING id) "
    "INSERT INTO bench_ledger (account, amount) SELECT id, 1 FROM moved"
)
#: Ledger rows of other accounts, each a copy of a real one.
_FILL = """
INSERT INTO ducto.ledger ({columns})
SELECT {values} FROM (SELECT * FROM ducto.ledger LIMIT 1) AS template,
    generate_series($1::integer, $2::integer) AS account, generate_series(1, $3::integer) AS number
"""
#: What differs from copy to copy; generated columns are left out.
_FILL_VALUES = {"account_id": "'bulk' || account", "sequence": "number", "key": "NULL"}
_FILL_COLUMNS = """
SELECT column_name::text FROM information_schema.columns
WHERE table_schema = 'ducto' AND table_name = 'ledger' AND is_generated = 'NEVER' ORDER BY ordinal_position
"""


@dataclass
class Figures:
    """Operations a second, and the time of single operations in milliseconds."""

    per_second: float
    latencies: list[float] = field(repr=False)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def pgbench(database: Database, *, accounts: int, seconds: float) -> dict[int, float]:
    """Transactions a second of the least durable transaction on so many accounts, by number of clients."""
    binaries = database.server.binaries
    if binaries is None:
        raise SystemExit("The benchmark needs a server of its own; unset DUCTO_TEST_POSTGRES_URL.")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "least.sql"
        chosen = f"\\set account random(1, {accounts})\n"
        script.write_text(chosen + _LEAST_STATEMENT.format(account=":account") + ";\n")
        for clients in PGBENCH_CLIENTS:
            command = [
                str(binaries / "pgbench"),
                *("-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))),
                *("-T", str(max(1, round(seconds)))),
                *("-f", str(script), database.superuser_url),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured = re.search(r"tps = ([\d.]+)", done.stdout)
            # None is told where not one transaction came through, as on a machine that has much else to do.
            found[clients] = float(measured[1]) if measured is not None else 0.0
    return found


async def callers(store: CreditStore, number: int, *, accounts: int, seconds: float) -> Figures:
    """`number` callers that reserve and deduct in turn, spread over `accounts`."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def call(user: str) -> None:
        while (begun := time.perf_counter()) < end:
            held = await store.reserve_credits(user, 50, "chat", min_balance=0)
            between = time.perf_counter()
            assert held.reservation_id is not None, held
            spent = await store.deduct_credits(user, held.reservation_id, 30)
            assert spent.ok, spent
            latencies.append(between - begun)
            latencies.append(time.perf_counter() - between)

    begun = time.perf_counter()
    await asyncio.gather(*(call(f"user{each % accounts}") for each in range(number)))
    return Figures(len(latencies) / (time.perf_counter() - begun), latencies)


async def lone(store: PostgresStore, database: Database, *, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of lone reserves, and of lone durable statements over asyncpg, taken in turns."""
    connection = await asyncpg.connect(database.superuser_url)
    reserves, statements = [], []
    try:
        statement = await connection.prepare(_LEAST_STATEMENT.format(account="$1"))
        for number in range(rounds):
            begun = time.perf_counter()
            await statement.fetch(number % ACCOUNTS + 1)
            between = time.perf_counter()
            await store.reserve_credits(f"user{number % ACCOUNTS}", 1, "chat", min_balance=0, ttl_seconds=86_400)
            reserves.append((time.perf_counter() - between) * 1000)
            statements.append((between - begun) * 1000)
    finally:
        await connection.close()
    return reserves, statements


async def warm(store: CreditStore, database: Database) -> None:
    """Fill caches, and let the planner know the tables, as autovacuum does within a minute of the first calls.

    Statements that were planned on empty tables may take an index that is of no use on full ones.
    """
    await callers(store, 64, accounts=ACCOUNTS, seconds=1)
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
    await callers(store, 64, accounts=ACCOUNTS, seconds=0.5)


async def fill(database: Database, rows: int) -> None:
    """Put `rows` ledger rows of other accounts into the tables, and let the server settle."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        names = [row[0] for row in await connection.fetch(_FILL_COLUMNS)]
        values = [_FILL_VALUES.get(name, f'template."{name}"') for name in names]
        statement = _FILL.format(columns=", ".join(f'"{name}"' for name in names), values=", ".join(values))
        accounts = rows // ROWS_OF_A_BULK_ACCOUNT
        for first in range(1, accounts + 1, 200):
            last = min(first + 199, accounts)
            await connection.execute(statement, first, last, ROWS_OF_A_BULK_ACCOUNT)
        await connection.execute("VACUUM ANALYZE ducto.ledger")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


@asynccontextmanager
async def bench_database() -> AsyncIterator[Database]:
    server = postgres_server("new", durable=True)
    await create_supabase_roles(server)
    async with new_database(server) as database:
        result = await migrate(database.url)
        assert result.success, result.errors
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute(_LEAST)
        finally:
            await connection.close()
        async with PostgresStore(database.url) as store:
            for first in range(0, ACCOUNTS, 100):
                await asyncio.gather(
                    *(store.add_credits(f"user{number}", 10**12) for number in range(first, first + 100))
                )
        yield database


@dataclass
class Found:
    """What one run found: figures by number of callers, transactions of pgbench a second by number of clients."""

    pgbench_spread: dict[int, float]
    pgbench_hot: dict[int, float]
    lone_reserves: list[float]
    lone_statements: list[float]
    spread: dict[int, Figures]
    hot: dict[int, Figures]
    http: dict[int, Figures]
    full: dict[int, Figures]


async def _found(*, seconds: float, rows: int) -> Found:
    async with bench_database() as database, PostgresStore(database.url) as store:
        await warm(store, database)
        spread, hot = [
            await asyncio.to_thread(pgbench, database, accounts=accounts, seconds=seconds) for accounts in (ACCOUNTS, 1)
        ]
        reserves, statements = await lone(store, database, rounds=max(20, round(100 * seconds)))
        many = {number: await callers(store, number, accounts=ACCOUNTS, seconds=seconds) for number in CALLERS}
        on_one = {number: await callers(store, number, accounts=1, seconds=seconds) for number in CALLERS}
        with start_postgrest(database) as server:
            async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as over_http:
                # Longer: each of PostgREST's connections plans every statement of the functions for itself.
                await callers(over_http, 64, accounts=ACCOUNTS, seconds=min(2, 5 * seconds))
                http = {
                    number: await callers(over_http, number, accounts=ACCOUNTS, seconds=seconds) for number in (1, 256)
                }
        full: dict[int, Figures] = {}
        if rows:
            await fill(database, rows)
            await warm(store, database)
            full = {number: await callers(store, number, accounts=ACCOUNTS, seconds=seconds) for number in (1, 256)}
    return Found(spread, hot, reserves, statements, many, on_one, http, full)


def _comparisons(found: Found, *, rows: int) -> list[Comparison]:
    busy = figure("256 callers", found.spread[256].per_second, unit="/s")
    comparisons = [
        compare(
            "PostgresStore, 256 callers on 1,000 accounts",
            busy,
            figure("pgbench's best of 1, 16 and 64 clients", max(found.pgbench_spread.values()), unit="/s"),
            aim=AIM_OF_PGBENCH,
            better="higher",
        ),
        compare(
            "PostgresStore, 256 callers on one account",
            figure("256 callers on one account", found.hot[256].per_second, unit="/s"),
            figure("pgbench's best on one row", max(found.pgbench_hot.values()), unit="/s"),
            aim=AIM_HOT,
            better="higher",
        ),
        compare(
            "PostgresStore, a lone reserve",
            figure("a lone reserve", found.lone_reserves, unit="ms"),
            figure("a lone durable statement over asyncpg", found.lone_statements, unit="ms"),
            aim=AIM_LONE,
            better="lower",
        ),
        compare(
            "HttpxSupabaseStore, 256 callers",
            figure("256 callers through PostgREST", found.http[256].per_second, unit="/s"),
            busy,
            aim=AIM_POSTGREST,
            better="higher",
        ),
    ]
    if found.full:
        comparisons.append(
            compare(
                f"PostgresStore, time beside {rows:,} ledger rows",
                figure(f"256 callers beside {rows:,} rows", 1e6 / found.full[256].per_second, unit="µs a call"),
                figure("256 callers beside few rows", 1e6 / found.spread[256].per_second, unit="µs a call"),
                aim=AIM_FULL,
                better="lower",
            )
        )
    return comparisons


def _figures(found: Found, *, rows: int) -> list[Figure]:
    """Every load, with the time of a call in it."""
    figures = [
        figure(f"pgbench, {clients} clients on {on}", each, unit="/s")
        for on, reached in ((f"{ACCOUNTS:,} rows", found.pgbench_spread), ("one row", found.pgbench_hot))
        for clients, each in reached.items()
    ]
    for where, loads in (
        (f"on {ACCOUNTS:,} accounts", found.spread),
        ("on one account", found.hot),
        ("through PostgREST", found.http),
        (f"beside {rows:,} ledger rows", found.full),
    ):
        for number, each in loads.items():
            name = f"{number} callers {where}"
            figures.append(figure(name, each.per_second, unit="/s"))
            figures += [figure(f"{name}, p{share}", each.percentile(share / 100), unit="ms") for share in (50, 99)]
    return figures


def measure(effort: Effort) -> Section:
    """All figures; `large` fills the ledger as well."""
    rows = ROWS if effort.large else 0
    found = asyncio.run(_found(seconds=effort.seconds, rows=rows))
    return Section("Postgres stores", about(__doc__), _comparisons(found, rows=rows), _figures(found, rows=rows))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
