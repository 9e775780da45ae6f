"""Who may call and read what: every function and table, for every role that is not the service's, by SQL and HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest

from ducto.migrate import migrate
from ducto.testing.servers import (
    Database,
    PostgrestServer,
    Version,
    mint_jwt,
    new_database,
    postgres_server,
    start_postgrest,
)
from ducto.testing.servers.databases import create_supabase_roles

VERSIONS: tuple[Version, ...] = ("new", "old")
REFUSED = asyncpg.InsufficientPrivilegeError


@pytest.fixture(params=VERSIONS)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    server = postgres_server(request.param)
    await create_supabase_roles(server)
    async with new_database(server, plain_owner=True) as made:
        assert (await migrate(made.url)).success
        yield made


@pytest.fixture
def postgrest(database: Database) -> Iterator[PostgrestServer]:
    with start_postgrest(database) as server:
        yield server


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.superuser_url)
    yield connection
    await connection.close()


async def signatures(admin: Any) -> list[tuple[str, list[str]]]:
    """Name and the types of the arguments of each public function."""
    found = await admin.fetch(
        "SELECT p.proname AS name, array(SELECT t::regtype::text FROM unnest(p.proargtypes) AS t) AS types "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname = 'public' AND p.proname LIKE 'ducto\\_%' ORDER BY 1"
    )
    assert len(found) > 40
    return [(row["name"], row["types"]) for row in found]


async def refuses_everything(connection: Any, admin: Any) -> None:
    for name, types in await signatures(admin):
        nulls = ", ".join(f"NULL::{each}" for each in types)
        with pytest.raises(REFUSED):
            await connection.execute(f"SELECT public.{name}({nulls})")
    tables = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ducto'")
    assert len(tables) > 8
    for (table,) in tables:
        for statement in ("SELECT * FROM", "DELETE FROM", "TRUNCATE"):
            with pytest.raises(REFUSED):
                await connection.execute(f"{statement} ducto.{table}")


async def test_a_fresh_login_is_refused_everything(database: Database, admin: Any) -> None:
    role = f"{database.name}_login"
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        connection = await asyncpg.connect(database.server.database_url(database.name, user=role))
        try:
            await refuses_everything(connection, admin)
            # Claiming to be somebody, as PostgREST does for those whose token it has verified, changes nothing.
            await connection.execute("""SELECT set_config('request.jwt.claims', '{"role": "service_role"}', false)""")
            await refuses_everything(connection, admin)
        finally:
            await connection.close()
    finally:
        await admin.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_public_roles_are_refused_everything_by_sql(database: Database, admin: Any, role: str) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute(f"SET ROLE {role}")
        await refuses_everything(connection, admin)
    finally:
        await connection.close()


async def test_the_service_role_reaches_functions_but_no_table(database: Database, admin: Any) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("SET ROLE service_role")
        assert await connection.fetchval("SELECT public.ducto_ping()")
        for (table,) in await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ducto'"):
            with pytest.raises(REFUSED):
                await connection.execute(f"SELECT * FROM ducto.{table}")
    finally:
        await connection.close()


@pytest.mark.parametrize("role", [None, "anon", "authenticated", "forged"])
async def test_through_postgrest_only_the_service_key_gets_anything(
    admin: Any, postgrest: PostgrestServer, role: str | None
) -> None:
    headers = {}
    if role is not None:
        token = mint_jwt("f" * 40, "service_role") if role == "forged" else postgrest.key(role)
        headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=postgrest.url, headers=headers) as client:
        for name, _ in await signatures(admin):
            names = await admin.fetchval("SELECT proargnames FROM pg_proc WHERE proname = $1", name) or []
            answer = await client.post(f"/rpc/{name}", json=dict.fromkeys(names))
            assert answer.status_code in (401, 403), (name, answer.text)
        for (table,) in await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ducto'"):
            assert (await client.get(f"/{table}")).status_code in (401, 404)
            assert (await client.get(f"/{table}", headers={"Accept-Profile": "ducto"})).status_code in (401, 406)
    async with httpx.AsyncClient(base_url=postgrest.url) as client:
        service = {"Authorization": f"Bearer {postgrest.key()}"}
        assert (await client.post("/rpc/ducto_ping", json={}, headers=service)).status_code == 200
