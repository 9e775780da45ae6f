"""An upgrade while PostgREST serves: its picture of the schema is stale for a moment, and no call fails."""

from __future__ import annotations

import asyncio

import asyncpg  # type: ignore[import-untyped]

from ducto.migrate import migrate, reload_postgrest
from ducto.migration_files import MigrationFile, migration_files
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import start_postgrest
from tests.conformance.sql_harness import PATIENCE_SECONDS, migrated_database


def touched(number: int) -> list[MigrationFile]:
    """The files with every function changed, though only by a comment."""
    return [
        file if file.kind == "table" else MigrationFile(file.name, file.kind, f"{file.sql}\n-- {number}\n")
        for file in migration_files()
    ]


async def test_no_call_through_postgrest_fails_while_the_schema_is_migrated() -> None:
    async with migrated_database("new", roles=True) as database:
        with start_postgrest(database) as server:
            async with HttpxSupabaseStore(
                url=server.url, key=server.key(), rest_path="", acquire_timeout_seconds=PATIENCE_SECONDS
            ) as store:
                await store.add_credits("alice", 1_000_000)
                calls = 0
                going = True

                async def caller() -> None:
                    nonlocal calls
                    while going:
                        held = await store.reserve_credits("alice", 5, "chat", min_balance=0)
                        assert (await store.deduct_credits("alice", held.reservation_id or "", 3)).ok
                        calls += 1

                callers = [asyncio.ensure_future(caller()) for _ in range(8)]
                for number in range(3):
                    result = await migrate(database.url, files=touched(number))
                    assert result.success, result.errors
                    await reload_postgrest(database.url)
                    await asyncio.sleep(0.3)
                going = False
                await asyncio.gather(*callers)
                assert calls > 20
                assert (await store.get_balance("alice")).balance == 1_000_000 - 3 * calls


async def test_a_function_that_postgrest_has_not_seen_yet_is_called_once_it_has() -> None:
    """Functions that are newer than what PostgREST remembers: the store is unavailable, and comes back."""
    async with migrated_database("new", roles=True) as database:
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute("ALTER FUNCTION public.ducto_get_balance RENAME TO ducto_get_balance_old")
            with start_postgrest(database) as server:
                await connection.execute("ALTER FUNCTION public.ducto_get_balance_old RENAME TO ducto_get_balance")
                async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as store:
                    await reload_postgrest(database.url)
                    async with asyncio.timeout(15):
                        while (await told(store)) is not None:  # noqa: ASYNC110
                            await asyncio.sleep(0.1)
                    assert (await store.get_balance("alice")).balance == 0
        finally:
            await connection.close()


async def told(store: HttpxSupabaseStore) -> str | None:
    """What the store says of an outage, `None` when there is none. Any other error is raised."""
    from ducto.errors import StoreError

    try:
        await store.get_balance("alice")
    except StoreError as error:
        assert "migrate" in str(error)  # noqa: PT017
        return str(error)
    return None
