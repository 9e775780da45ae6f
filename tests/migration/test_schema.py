"""The package's own files: fresh as migrated, eight at once, under traffic, with and without Supabase's roles."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.migrate import migrate, migration_sql, pending
from ducto.migration_files import MigrationFile, migration_files
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database, PostgresServer, Version, new_database, postgres_server
from ducto.testing.servers.databases import create_supabase_roles
from ducto.testing.servers.postgres import postgres_binaries
from tests.migration.support import schema_of

VERSIONS: tuple[Version, ...] = ("new", "old")


@pytest.fixture(params=VERSIONS)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with new_database(postgres_server(request.param), plain_owner=True) as made:
        yield made


@pytest.fixture(scope="module")
def bare_server() -> Iterator[PostgresServer]:
    """A server of its own: roles belong to the whole server, and here there are none."""
    server = PostgresServer(postgres_binaries("new"))
    server.start()
    yield server
    server.stop()


async def comparable(database: Database) -> list[tuple[str, ...]]:
    """The schema, without the name of its owner."""
    return [
        tuple(str(part).replace(f"{database.name}_owner", "OWNER").replace("postgres", "OWNER") for part in row)
        for row in await schema_of(database.superuser_url)
    ]


async def test_a_second_run_changes_nothing(database: Database) -> None:
    assert (await migrate(database.url)).success
    first = await comparable(database)
    again = await migrate(database.url)
    assert (again.success, again.applied) == (True, ())
    assert await comparable(database) == first


async def test_file_by_file_gives_the_same_as_at_once(database: Database) -> None:
    """As a database that was there from the first release has come to be."""
    files = migration_files()
    numbered = [file for file in files if file.kind == "table"]
    rest = [file for file in files if file.kind != "table"]
    for count in range(1, len(numbered) + 1):
        # The functions of a release belong to its tables; here only those of the last one are known.
        last = count == len(numbered)
        result = await migrate(database.url, files=[*numbered[:count], *(rest if last else rest[-1:])])
        assert result.success, result.errors
    grown = await comparable(database)
    async with new_database(database.server, plain_owner=True) as fresh:
        assert (await migrate(fresh.url)).success
        assert await comparable(fresh) == grown


async def test_the_printed_script_gives_the_same(database: Database) -> None:
    connection = await asyncpg.connect(database.url)
    try:
        roles = await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')"
        )
        await connection.execute(migration_sql(roles=[row[0] for row in roles]))
    finally:
        await connection.close()
    assert (await migrate(database.url)).applied == ()


async def test_eight_at_once(database: Database) -> None:
    results = await asyncio.gather(*(migrate(database.url) for _ in range(8)))
    assert [result.errors for result in results] == [()] * 8
    assert sum(bool(result.applied) for result in results) == 1


async def test_no_call_fails_while_everything_is_applied_again(database: Database) -> None:
    """Every function and the permissions, five times, under callers that reserve and deduct all the time."""
    assert (await migrate(database.url)).success
    async with PostgresStore(database.url) as store:
        await asyncio.gather(*(store.add_credits(f"u{number}", 1_000_000) for number in range(8)))
        going = True
        calls = 0

        async def caller(user: str) -> None:
            nonlocal calls
            while going:
                held = await store.reserve_credits(user, 5, "chat")
                assert held.reservation_id is not None, held
                spent = await store.deduct_credits(user, held.reservation_id, 3)
                assert spent.ok, spent
                calls += 2

        callers = [asyncio.ensure_future(caller(f"u{number % 8}")) for number in range(16)]
        for number in range(5):
            result = await migrate(database.url, files=_touched(number))
            assert result.success, result.errors
            assert len(result.applied) > 20
        await asyncio.sleep(0.2)
        going = False
        await asyncio.gather(*callers)
    assert calls > 100


def _touched(number: int) -> list[MigrationFile]:
    """The files with every function changed, though only by a comment."""
    return [
        file if file.kind == "table" else MigrationFile(file.name, file.kind, f"{file.sql}\n-- {number}\n")
        for file in migration_files()
    ]


async def test_an_upgrade_keeps_the_books(database: Database) -> None:
    await migrate(database.url)
    async with PostgresStore(database.url) as store:
        await store.add_credits("ann", 100)
        held = await store.reserve_credits("ann", 40, "chat", min_balance=0)
        added = MigrationFile("0099_more.sql", "table", "ALTER TABLE ducto.accounts ADD COLUMN more text;")
        files = _touched(0)
        assert (await migrate(database.url, files=[*files[:12], added, *files[12:]])).success
        assert (await store.deduct_credits("ann", held.reservation_id or "", 30)).ok
        assert (await store.get_balance("ann")).balance == 70


async def test_an_older_program_leaves_the_functions_of_a_newer_one(database: Database) -> None:
    added = MigrationFile("0099_more.sql", "table", "ALTER TABLE ducto.accounts ADD COLUMN more text;")
    newer = _touched(1)
    assert (await migrate(database.url, files=[*newer[:12], added, *newer[12:]])).success
    before = await comparable(database)
    older = await migrate(database.url)
    assert (older.success, older.applied, older.newer) == (True, (), ("0099_more.sql",))
    assert await pending(database.url) == []
    assert await comparable(database) == before
    owner = await asyncpg.connect(database.url)
    try:
        body = await owner.fetchval("SELECT checksum FROM ducto.migrations WHERE name = 'functions/ping.sql'")
    finally:
        await owner.close()
    assert body == next(file.checksum for file in newer if file.name == "functions/ping.sql")


async def test_helpers_that_took_other_arguments_before_give_way(database: Database) -> None:
    files = migration_files()
    numbered = [file for file in files if file.kind == "table"]
    assert (await migrate(database.url, files=[*numbered[:10], files[-1]])).success
    dropped = re.findall(r"drop function if exists (ducto\.\w+\([^)]*\));", numbered[11].sql)
    assert len(dropped) == 4
    owner = await asyncpg.connect(database.url)
    try:
        for signature in dropped:
            await owner.execute(f"CREATE FUNCTION {signature} RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
    finally:
        await owner.close()
    assert (await migrate(database.url)).errors == ()


async def test_roles_may_be_missing_and_may_come_later(bare_server: PostgresServer) -> None:
    async with new_database(bare_server, plain_owner=True) as database:
        assert (await migrate(database.url)).success
        await create_supabase_roles(bare_server)
        assert (await migrate(database.url)).applied == ("permissions.sql",)
        connection = await asyncpg.connect(database.superuser_url)
        try:
            rights = await connection.fetch(
                "SELECT p.proname, has_function_privilege('service_role', p.oid, 'EXECUTE') AS granted FROM pg_proc p "
                "JOIN pg_namespace n ON n.oid = p.pronamespace "
                "WHERE n.nspname = 'public' AND p.proname LIKE 'ducto\\_%'"
            )
        finally:
            await connection.close()
        assert rights
        assert all(row["granted"] for row in rights)


async def test_default_privileges_of_a_hosted_database_are_taken_back(bare_server: PostgresServer) -> None:
    """Supabase gives every new function in public to anon, authenticated and service_role."""
    await create_supabase_roles(bare_server)
    async with new_database(bare_server) as database:
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, "
                "service_role; "
                "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, service_role"
            )
        finally:
            await connection.close()
        result = await migrate(database.url)
        assert result.success, result.errors


def test_numbered_files_follow_each_other() -> None:
    numbers = [int(file.name[:4]) for file in migration_files() if file.kind == "table"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_function_raises_what_postgrest_repeats_for_ever() -> None:
    for file in migration_files():
        assert not re.search(r"40001|40P01|serialization_failure", file.sql), file.name
