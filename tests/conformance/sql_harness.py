"""Harnesses of the SQL stores: real servers, one migrated database each for the whole run, and a clock that moves.

The database's `ducto._clock()` is replaced by one that reads a table, which is all that a test of time needs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg  # type: ignore[import-untyped]

from ducto.migrate import migrate
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.harness import Harness, HarnessFactory
from ducto.testing.servers import Database, PostgrestServer, Version, new_database, postgres_server, start_postgrest
from ducto.testing.servers.databases import create_supabase_roles

__all__ = ["SQL_STORES", "SqlClock", "SqlHarness", "migrated_database", "open_postgres", "open_postgrest"]

#: `frozen_at` stops the clock, for tests that compare instants; else real time runs, `shift` away from the true time.
_CLOCK = """
CREATE SCHEMA IF NOT EXISTS ducto_test;
CREATE TABLE IF NOT EXISTS ducto_test.clock (shift interval NOT NULL DEFAULT '0', frozen_at timestamptz);
INSERT INTO ducto_test.clock SELECT WHERE NOT EXISTS (SELECT FROM ducto_test.clock);
CREATE OR REPLACE FUNCTION ducto._clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(frozen_at, pg_catalog.clock_timestamp()) + shift FROM ducto_test.clock
$$;
"""

#: 64 callers at once wait for a few connections; on a busy machine that takes longer than a gateway would wait.
PATIENCE_SECONDS = 30.0


class SqlClock:
    """The clock of one database. A connection for each use, because each test has an event loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def advance(self, seconds: float) -> None:
        """Move by `seconds`, back if negative."""
        await self._execute("UPDATE ducto_test.clock SET shift = shift + make_interval(secs => $1)", seconds)

    async def freeze(self, at: datetime) -> None:
        """Stop it at `at`; from then on only `advance` moves it."""
        await self._execute("UPDATE ducto_test.clock SET shift = '0', frozen_at = $1", at)

    async def _execute(self, statement: str, *values: object) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()


class SqlHarness:
    """A SQL store with its database and clock."""

    def __init__(self, store: CreditStore, database: Database) -> None:
        self._store = store
        self.database = database
        self.clock = SqlClock(database.superuser_url)

    @property
    def store(self) -> CreditStore:
        return self._store

    async def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("advance() only goes forward; use step_back().")
        await self.clock.advance(seconds)

    async def step_back(self, seconds: float) -> None:
        await self.clock.advance(-seconds)


@asynccontextmanager
async def migrated_database(version: Version, *, roles: bool = False) -> AsyncIterator[Database]:
    """A database of its own, migrated, with the clock of the tests."""
    server = postgres_server(version)
    if roles:
        await create_supabase_roles(server)
    async with new_database(server, plain_owner=not roles) as database:
        result = await migrate(database.url)
        assert result.success, result.errors
        connection = await asyncpg.connect(database.url)
        try:
            await connection.execute(_CLOCK)
        finally:
            await connection.close()
        yield database


@dataclass(frozen=True, slots=True)
class _Shared:
    database: Database
    postgrest: PostgrestServer | None


@functools.cache
def _shared(version: Version, *, postgrest: bool) -> _Shared:
    """One database for all checks of a run, made in a loop of its own; it goes with its server when the run ends."""
    keep = contextlib.ExitStack()
    runner = keep.enter_context(asyncio.Runner())
    opened = migrated_database(version, roles=postgrest)
    database = runner.run(opened.__aenter__())
    keep.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
    server = keep.enter_context(start_postgrest(database)) if postgrest else None
    atexit.register(keep.close)  # After the server's own, and so run before it.
    return _Shared(database, server)


async def _shared_from_a_loop(version: Version, *, postgrest: bool) -> _Shared:
    return await asyncio.to_thread(_shared, version, postgrest=postgrest)


def open_postgres(version: Version) -> Callable[[], contextlib.AbstractAsyncContextManager[SqlHarness]]:
    """Opens a `PostgresStore` on the shared database of that version of Postgres."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[SqlHarness]:
        shared = await _shared_from_a_loop(version, postgrest=False)
        async with PostgresStore(shared.database.url, acquire_timeout_seconds=PATIENCE_SECONDS) as store:
            yield SqlHarness(store, shared.database)

    return opened


@asynccontextmanager
async def open_postgrest() -> AsyncIterator[SqlHarness]:
    """Opens a `HttpxSupabaseStore` on a real PostgREST over a shared database of Postgres 18."""
    shared = await _shared_from_a_loop("new", postgrest=True)
    assert shared.postgrest is not None
    server, url = shared.postgrest, shared.database.url
    async with HttpxSupabaseStore(
        url=server.url,
        key=server.key(),
        rest_path="",
        database_url=url,
        acquire_timeout_seconds=PATIENCE_SECONDS,
    ) as store:
        yield SqlHarness(store, shared.database)


def _harness_of(opener: Callable[[], contextlib.AbstractAsyncContextManager[SqlHarness]]) -> HarnessFactory:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Harness]:
        async with opener() as harness:
            yield harness

    return opened


#: By name, for the fixture of the conformance kit.
SQL_STORES: Mapping[str, HarnessFactory] = {
    "postgres18": _harness_of(open_postgres("new")),
    "postgres15": _harness_of(open_postgres("old")),
    "postgrest": _harness_of(open_postgrest),
}
