"""Real servers for the blocks of the documentation that read an address from the environment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator

import pytest

from ducto.testing.servers import new_database, postgres_server, start_postgrest
from ducto.testing.servers.databases import create_supabase_roles
from ducto.testing.servers.redis import start_redis


@pytest.fixture
def database_in_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`DATABASE_URL` names an empty database."""
    with asyncio.Runner() as runner:
        opened = new_database(postgres_server(), plain_owner=True)
        database = runner.run(opened.__aenter__())
        try:
            monkeypatch.setenv("DATABASE_URL", database.url)
            yield
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def postgrest_in_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`SUPABASE_URL` and its key name a PostgREST over the empty database that `DATABASE_URL` names."""
    server = postgres_server()
    with asyncio.Runner() as runner:
        runner.run(create_supabase_roles(server))
        opened = new_database(server)
        database = runner.run(opened.__aenter__())
        try:
            with start_postgrest(database) as postgrest:
                monkeypatch.setenv("DATABASE_URL", database.url)
                monkeypatch.setenv("SUPABASE_URL", postgrest.url)
                monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", postgrest.key())
                monkeypatch.setenv("REST_PATH", "")
                yield
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def short_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home for blocks that keep something in it, with a path that is short enough for a unix socket's."""
    with tempfile.TemporaryDirectory(prefix="ducto-") as folder:
        monkeypatch.setenv("HOME", folder)
        yield


@pytest.fixture
def redis_in_environment(database_in_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`REDIS_URL` names an empty Redis, and `DATABASE_URL` an empty database."""
    with start_redis() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        yield
