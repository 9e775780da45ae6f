"""Reserve and deduct through the SQL stores, beside the least durable transaction that the same server can do.

One server, one run: `pgbench` with one UPDATE and one INSERT in a statement, from 1, 16 and 64 clients; then the store
from this one process, with 1, 16, 256 and 1,024 callers that reserve and deduct in turn, over 1,000 accounts and on
one. `fsync` is on for all. Figures of different runs cannot be compared: look at the ratios.

Run it with `python -m benchmarks.postgres`; `--rows 10000000` first fills the ledger, which takes minutes.
"""

from __future__ import annotations

import argparse
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

#: What we mean to reach; see `report`.
AIM_OF_PGBENCH = 1.0
AIM_LONE = 1.6
AIM_POSTGREST = 0.3
AIM_HOT = 0.75
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


def pgbench(database: Database, *, seconds: float) -> dict[int, float]:
    """Transactions a second of the least durable transaction, by number of clients."""
    binaries = database.server.binaries
    if binaries is None:
        raise SystemExit("The benchmark needs a server of its own; unset DUCTO_TEST_POSTGRES_URL.")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "least.sql"
        script.write_text("\\set account random(1, 1000)\n" + _LEAST_STATEMENT.format(account=":account") + ";\n")
        for clients in PGBENCH_CLIENTS:
            command = [
                str(binaries / "pgbench"),
                *("-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(round(seconds))),
                *("-f", str(script), database.superuser_url),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured = re.search(r"tps = ([\d.]+)", done.stdout)
            assert measured is not None, done.stdout
            found[clients] = float(measured[1])
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


async def lone(store: PostgresStore, database: Database, *, rounds: int) -> tuple[float, float]:
    """Milliseconds of a lone reserve, and of a lone durable statement over asyncpg: medians, taken in turns."""
    connection = await asyncpg.connect(database.superuser_url)
    reserves, statements = [], []
    try:
        statement = await connection.prepare(_LEAST_STATEMENT.format(account="$1"))
        for number in range(rounds):
            begun = time.perf_counter()
            await statement.fetch(number % ACCOUNTS + 1)
            between = time.perf_counter()
            await store.reserve_credits(f"user{number % ACCOUNTS}", 1, "chat", min_balance=0, ttl_seconds=86_400)
            reserves.append(time.perf_counter() - between)
            statements.append(between - begun)
    finally:
        await connection.close()
    return (sorted(reserves)[rounds // 2] * 1000, sorted(statements)[rounds // 2] * 1000)


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


async def measure(*, seconds: float = 3.0, rows: int = 0, postgrest: bool = True) -> dict[str, Figures | float]:
    """All figures by name."""
    found: dict[str, Figures | float] = {}
    async with bench_database() as database, PostgresStore(database.url) as store:
        await warm(store, database)
        for clients, per_second in (await asyncio.to_thread(pgbench, database, seconds=seconds)).items():
            found[f"pgbench {clients}"] = per_second
        found["lone reserve ms"], found["lone statement ms"] = await lone(store, database, rounds=300)
        for number in CALLERS:
            found[f"{number} on 1000"] = await callers(store, number, accounts=ACCOUNTS, seconds=seconds)
            found[f"{number} on 1"] = await callers(store, number, accounts=1, seconds=seconds)
        if postgrest:
            with start_postgrest(database) as server:
                async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as over_http:
                    # Longer: each of PostgREST's connections plans every statement of the functions for itself.
                    await callers(over_http, 64, accounts=ACCOUNTS, seconds=2)
                    for number in (1, 256):
                        name = f"postgrest {number}"
                        found[name] = await callers(over_http, number, accounts=ACCOUNTS, seconds=seconds)
        if rows:
            begun = time.perf_counter()
            await fill(database, rows)
            found["seconds to fill"] = time.perf_counter() - begun
            await warm(store, database)
            for number in (1, 256):
                found[f"{number} on 1000, full"] = await callers(store, number, accounts=ACCOUNTS, seconds=seconds)
    return found


def report(found: dict[str, Figures | float]) -> list[str]:
    """The table, then each aim with what was reached."""

    def per_second(name: str) -> float:
        figures = found[name]
        return figures.per_second if isinstance(figures, Figures) else figures

    lines = [f"{'':<24}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}"]
    for name, figures in found.items():
        if isinstance(figures, Figures):
            lines.append(
                f"{name:<24}{figures.per_second:>12.0f}{figures.percentile(0.5):>9.2f}{figures.percentile(0.99):>9.2f}"
            )
        else:
            lines.append(f"{name:<24}{figures:>12.2f}")
    best = max(per_second(f"pgbench {clients}") for clients in PGBENCH_CLIENTS)
    aims = [
        ("256 callers / pgbench's best", per_second("256 on 1000") / best, ">=", AIM_OF_PGBENCH),
        ("1024 callers / pgbench's best", per_second("1024 on 1000") / best, ">=", AIM_OF_PGBENCH),
        ("one account / 1000 accounts", per_second("256 on 1") / per_second("256 on 1000"), ">=", AIM_HOT),
        (
            "lone reserve / lone statement",
            per_second("lone reserve ms") / per_second("lone statement ms"),
            "<=",
            AIM_LONE,
        ),
    ]
    if "postgrest 256" in found:
        aims.append(
            ("PostgREST / asyncpg", per_second("postgrest 256") / per_second("256 on 1000"), ">=", AIM_POSTGREST)
        )
    if "256 on 1000, full" in found:
        slower = per_second("256 on 1000") / per_second("256 on 1000, full")
        aims.append(("time with a full ledger", slower, "<=", AIM_FULL))
    for name, reached, sign, aim in aims:
        met = reached >= aim if sign == ">=" else reached <= aim
        lines.append(f"{name:<34}{reached:>6.2f}  aim {sign} {aim}{'' if met else '  MISSED'}")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured")
    parser.add_argument("--rows", type=int, default=0, help="ledger rows to put there before the last figures")
    parser.add_argument("--no-postgrest", action="store_true")
    chosen = parser.parse_args()
    found = asyncio.run(measure(seconds=chosen.seconds, rows=chosen.rows, postgrest=not chosen.no_postgrest))
    print("\n".join(report(found)))


if __name__ == "__main__":
    main()
