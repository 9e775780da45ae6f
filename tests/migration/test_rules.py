"""What a migration does and refuses, shown with small files of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import ConfigError, StoreError
from ducto.migrate import migrate, pending, run_migrations
from ducto.migration_files import MigrationFile
from ducto.testing.servers import Database, new_database, postgres_server
from tests.migration.support import PERMISSIONS, TABLE, function, schema_of, table

FILES = [TABLE, function("one", "1"), PERMISSIONS]


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with new_database(postgres_server(), plain_owner=True) as made:
        yield made


async def answer(database: Database, name: str) -> str:
    connection = await asyncpg.connect(database.url)
    try:
        return str(await connection.fetchval(f"SELECT public.ducto_{name}()"))
    finally:
        await connection.close()


async def test_a_changed_function_is_applied_again_and_with_it_the_permissions(database: Database) -> None:
    await migrate(database.url, files=FILES)
    changed = [TABLE, function("one", "2"), function("two", "2"), PERMISSIONS]
    assert [file.name for file in await pending(database.url, files=changed)] == [
        "functions/one.sql",
        "functions/two.sql",
        "permissions.sql",
    ]
    assert (await migrate(database.url, files=changed)).success
    assert await answer(database, "one") == "2"
    assert await pending(database.url, files=changed) == []


async def test_a_numbered_file_that_was_changed_is_refused_and_nothing_is_applied(database: Database) -> None:
    await migrate(database.url, files=FILES)
    changed = [table(1, "CREATE TABLE ducto.other (id text);"), function("one", "2"), PERMISSIONS]
    result = await migrate(database.url, files=changed)
    assert not result.success
    assert "0001_table.sql was changed" in result.errors[0]
    assert await answer(database, "one") == "1"
    with pytest.raises(ConfigError, match=r"0001_table\.sql was changed"):
        await pending(database.url, files=changed)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (function("one", "2", arguments="p_x integer"), "same name"),
        (
            MigrationFile("zzz.sql", "function", "GRANT EXECUTE ON FUNCTION public.ducto_one() TO PUBLIC;"),
            "everybody",
        ),
        (MigrationFile("zzz.sql", "function", "ALTER FUNCTION public.ducto_one() RESET search_path;"), "search_path"),
        (MigrationFile("zzz.sql", "function", "ALTER TABLE ducto.one NO FORCE ROW LEVEL SECURITY;"), "row level"),
        (MigrationFile("zzz.sql", "function", "GRANT SELECT ON ducto.one TO PUBLIC;"), "rights on the table"),
        (MigrationFile("zzz.sql", "function", "SELECT 1 / 0;"), "22012"),
        (MigrationFile("zzz.sql", "function", "SELEC 1;"), "42601"),
    ],
)
async def test_what_must_not_be_is_refused_and_rolled_back(database: Database, bad: MigrationFile, said: str) -> None:
    await migrate(database.url, files=FILES)
    before = await schema_of(database.url)
    # After the permissions, which would mend some of it.
    result = await migrate(database.url, files=[*FILES, MigrationFile("functions/zzz.sql", "function", bad.sql)])
    assert not result.success
    assert said in result.errors[0]
    assert await schema_of(database.url) == before


async def test_permissions_are_applied_again_when_a_role_appears(database: Database) -> None:
    await migrate(database.url, files=FILES)
    admin = await asyncpg.connect(database.superuser_url)
    existed = await admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon')")
    try:
        if existed:
            # The same the other way round: a role that a database does not know of yet.
            await admin.execute("UPDATE ducto.migrations SET checksum = split_part(checksum, ' ', 1)")
        else:
            await admin.execute("CREATE ROLE anon NOLOGIN")
        assert (await migrate(database.url, files=FILES)).applied == ("permissions.sql",)
    finally:
        if not existed:
            await admin.execute("DROP ROLE anon")
        await admin.close()


async def test_a_migration_gives_way_to_running_calls(database: Database) -> None:
    """It needs the lock of a table that a transaction uses: it tries again, and nobody waits behind it for long."""
    await migrate(database.url, files=FILES)
    wider = [*FILES[:-1], table(2, "ALTER TABLE ducto.one ADD COLUMN more text;"), PERMISSIONS]
    user = await asyncpg.connect(database.superuser_url)
    other = await asyncpg.connect(database.superuser_url)
    try:
        async with user.transaction():
            await user.execute("INSERT INTO ducto.one VALUES ('a')")
            migrating = asyncio.ensure_future(migrate(database.url, files=wider))
            for number in range(10):
                await asyncio.sleep(0.1)
                await other.execute("INSERT INTO ducto.one VALUES ($1)", f"b{number}", timeout=1)
            assert not migrating.done()
        assert (await migrating).success
    finally:
        await user.close()
        await other.close()


async def test_a_role_may_be_given_the_functions_and_keeps_getting_new_ones(database: Database) -> None:
    role = f"{database.name}_app"
    admin = await asyncpg.connect(database.superuser_url)
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        assert not (await migrate(database.url, files=FILES, grant_to="no'such\\role")).success
        assert (await migrate(database.url, files=FILES, grant_to=role)).success
        await migrate(database.url, files=[TABLE, function("one", "1"), function("two", "2"), PERMISSIONS])
        app = await asyncpg.connect(database.server.database_url(database.name, user=role))
        try:
            assert [await app.fetchval("SELECT ducto_one()"), await app.fetchval("SELECT ducto_two()")] == ["1", "2"]
            for refused in ("SELECT * FROM ducto.one", "SELECT * FROM ducto.migrations", "CREATE TABLE public.x ()"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await app.fetch(refused)
        finally:
            await app.close()
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()


def test_it_runs_without_a_loop() -> None:
    async def use() -> str:
        async with new_database(postgres_server()) as database:
            result = await asyncio.to_thread(run_migrations, database.url)
            return "ok" if result.success else result.errors[0]

    assert asyncio.run(use()) == "ok"


async def test_within_a_loop_the_async_form_is_named() -> None:
    with pytest.raises(ConfigError, match="await ducto"):
        run_migrations("postgresql://127.0.0.1/none")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://ann:S3cret-canary@127.0.0.1:1/none", StoreError),
        ("mysql://ann:S3cret-canary@127.0.0.1/none", ConfigError),
    ],
)
async def test_a_url_of_no_use_is_refused_without_repeating_it(url: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        await migrate(url)
    assert "canary" not in str(caught.value)
