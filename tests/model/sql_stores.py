"""The SQL stores of the model test: real servers, a clock that follows the memory store's, emptied for each example."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import Database, start_postgrest
from tests.conformance.sql_harness import SqlClock, migrated_database

__all__ = ["SqlSide", "open_side"]

#: Everything but the record of the migrations. The trigger that keeps the ledger refuses even this, to anybody.
_EMPTY = """
DO $$
BEGIN
    ALTER TABLE ducto.ledger DISABLE TRIGGER USER;
    EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(format('%I.%I', schemaname, tablename), ', ') || ' RESTART IDENTITY'
        FROM pg_catalog.pg_tables WHERE schemaname = 'ducto' AND tablename <> 'migrations');
    ALTER TABLE ducto.ledger ENABLE ALWAYS TRIGGER ledger_is_append_only;
END
$$
"""

#: Functions that serve plain accounts with one statement for a whole batch.
_SET_BASED = frozenset({"ducto_reserve", "ducto_deduct", "ducto_charge"})


class BothPathsStore(PostgresStore):
    """Sends every batched call down both paths, and requires the same answers of both.

    What goes as a batch is first tried as lone calls, one after another; what goes alone is first tried as a batch of
    one. The trial is rolled back.
    """

    async def _call(
        self, function: str, arguments: Mapping[str, Any], *, settle: bool = False, long: bool = False
    ) -> str | bytes:
        items = arguments.get("p_items")
        if items is None or (len(items) == 1 and function not in _SET_BASED):
            return await super()._call(function, arguments, settle=settle, long=long)
        tried = await self._tried(function, items)
        text = await super()._call(function, arguments, settle=settle, long=long)
        for item, answer, other in zip(items, json.loads(text), tried, strict=True):
            if answer.get("deferred"):
                continue  # A row would have to be made, for which a batch does not wait.
            paths = "as a batch and one by one" if len(items) > 1 else "alone and as a batch of one"
            assert answer == other, f"{function} {paths}: {answer} and {other} for {item} of {items}"
        return text

    async def _tried(self, function: str, items: list[Any]) -> list[Any]:
        alone, together = f"public.{function}", f"ducto.{function.removeprefix('ducto')}_batch"
        answers: list[Any] = []
        async with self._connection(settle=False) as connection:
            trial = connection.transaction()
            await trial.start()
            try:
                for item in items if len(items) > 1 else ():
                    answers += json.loads(await connection.fetchval(f"SELECT {alone}($1, true)", json.dumps([item])))
                if len(items) == 1:
                    answers += json.loads(await connection.fetchval(f"SELECT {together}($1, true)", json.dumps(items)))
            finally:
                await trial.rollback()
        return answers


class SqlSide:
    """A SQL store beside the memory store: `start` an example, and let its clock say the same."""

    def __init__(self, store: CreditStore, clock: SqlClock, database: Database) -> None:
        self.store = store
        self._clock = clock
        self._database = database

    async def start(self, now: datetime) -> None:
        """Empty the database and stop its clock."""
        connection = await asyncpg.connect(self._database.superuser_url)
        try:
            await connection.execute(_EMPTY)
        finally:
            await connection.close()
        # With the clock stopped, versions of the books before look the same as those to come.
        self.store._last_active = None
        await self.set_clock(now)

    async def set_clock(self, now: datetime) -> None:
        await self._clock.freeze(now)


@asynccontextmanager
async def open_side(name: str) -> AsyncIterator[SqlSide]:
    """The store of that name, with the same names as in the conformance kit, on a database of its own."""
    over_http = name == "postgrest"
    async with (
        migrated_database("old" if name == "postgres15" else "new", roles=over_http) as database,
        _http_store(database) if over_http else BothPathsStore(database.url) as store,
    ):
        yield SqlSide(store, SqlClock(database.superuser_url), database)


@asynccontextmanager
async def _http_store(database: Database) -> AsyncIterator[CreditStore]:
    with start_postgrest(database) as server:
        async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as store:
            yield store
