"""Databases for one test each, and the roles that a Supabase database has."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg  # type: ignore[import-untyped]

from ducto.testing.servers.postgres import PostgresServer

__all__ = ["AUTHENTICATOR_PASSWORD", "Database", "create_supabase_roles", "new_database"]

#: Of servers that listen on loopback for the length of a test.
AUTHENTICATOR_PASSWORD = "for-tests-only"

#: The roles of Supabase and PostgREST, made once a server. Two tests may make them at the same time.
_ROLES = f"""
DO $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(20260101);
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'anon') THEN
        CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role NOLOGIN BYPASSRLS;
        CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD '{AUTHENTICATOR_PASSWORD}';
        GRANT anon, authenticated, service_role TO authenticator;
    END IF;
END
$$"""


@dataclass(frozen=True, slots=True)
class Database:
    """A database, with the URL of its owner and that of the server's superuser."""

    server: PostgresServer
    name: str
    url: str
    superuser_url: str


@asynccontextmanager
async def new_database(server: PostgresServer, *, plain_owner: bool = False) -> AsyncIterator[Database]:
    """An empty database, dropped at the end. With `plain_owner` it belongs to a new login without any privilege."""
    name = f"ducto_test_{secrets.token_hex(6)}"
    owner = f"{name}_owner" if plain_owner else None
    password = secrets.token_hex(8)
    create_role = [] if owner is None else [f"CREATE ROLE {owner} LOGIN PASSWORD '{password}'"]
    await _execute(server, *create_role, f"CREATE DATABASE {name}" + (f" OWNER {owner}" if owner else ""))
    superuser_url = server.database_url(name)
    url = superuser_url if owner is None else server.database_url(name, user=owner, password=password)
    try:
        yield Database(server, name, url, superuser_url)
    finally:
        # On a connection of its own: the server may have been restarted by the test.
        drop_role = [] if owner is None else [f"DROP ROLE {owner}"]
        await _execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", *drop_role)


async def _execute(server: PostgresServer, *statements: str) -> None:
    """As the superuser, each statement in a transaction of its own."""
    connection = await asyncpg.connect(server.url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def create_supabase_roles(server: PostgresServer) -> None:
    """The roles anon, authenticated, service_role and the login authenticator. Idempotent."""
    await _execute(server, _ROLES)
