"""The command line on a real database, in the test's own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner

from ducto.cli import app
from ducto.manager import CreditManager
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import new_database, postgres_server

T = TypeVar("T")


class Ducto:
    """Runs commands as a user types them, against the database of the test's module."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = CliRunner()

    def run(self, *arguments: str, code: int = 0) -> str:
        """What the command prints on stdout; it must end with the exit code `code`."""
        return self.ended(*arguments, code=code)[0]

    def refused(self, *arguments: str, code: int) -> str:
        """What the command says on stderr; stdout stays empty and nobody sees a traceback."""
        printed, said = self.ended(*arguments, code=code)
        assert printed == ""
        assert "Traceback" not in said
        return said

    def ended(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it prints on stdout and on stderr."""
        result = self._runner.invoke(app, list(arguments), prog_name="ducto")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{result.exit_code}: {result.stdout}{result.stderr}"
        return result.stdout, result.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The document that it prints with `--json`."""
        return json.loads(self.run(*arguments, "--json", code=code))

    def did(self, work: Callable[[CreditManager], Coroutine[Any, Any, T]]) -> T:
        """The result of `work` with a manager on the same database: what a gateway would have done."""

        async def run() -> T:
            async with PostgresStore(self.url) as store, CreditManager(store, maintain_every_seconds=None) as manager:
                return await work(manager)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with asyncio.Runner() as runner:
        opened = new_database(postgres_server())
        database = runner.run(opened.__aenter__())
        try:
            assert runner.run(migrate(database.url)).success
            yield database.url
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def ducto(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Ducto:
    monkeypatch.setenv("DUCTO_STORE", database_url)
    monkeypatch.setenv("COLUMNS", "200")
    return Ducto(database_url)
