"""A folder for the journal of each test, and a Postgres that may be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ducto.migrate import migrate
from ducto.testing.servers import Database, PostgresServer, new_database
from ducto.testing.servers.postgres import postgres_binaries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture(scope="session")
def mortal_server() -> Iterator[PostgresServer]:
    """A server of its own, with fsync on: it is going to be killed."""
    made = PostgresServer(postgres_binaries("new"), durable=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def mortal(mortal_server: PostgresServer) -> AsyncIterator[Database]:
    """A database on it. Who kills the server starts it again."""
    mortal_server.start()
    async with new_database(mortal_server) as made:
        assert (await migrate(made.url)).success
        yield made
