"""`ducto journal`: what is outstanding, and charging it by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ducto.cli import app
from ducto.journal import BooksFolder, JournalWriter
from ducto.manager.charges import Charge
from ducto.manager.entries import entry_of
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import new_database, postgres_server
from tests.journal.support import segments


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    monkeypatch.setenv("DUCTO_JOURNAL", str(folder))
    monkeypatch.setenv("COLUMNS", "300")  # So that no name is broken in two.
    with asyncio.Runner() as runner:
        opened = new_database(postgres_server())
        database = runner.run(opened.__aenter__())
        try:
            assert runner.run(migrate(database.url)).success
            monkeypatch.setenv("DUCTO_STORE", database.url)
            yield database.url
        finally:
            runner.run(opened.__aexit__(None, None, None))


def ducto(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["journal", *arguments], prog_name="ducto")
    assert result.exit_code == code, result.stdout + result.stderr
    return result.stdout


def listed() -> Any:
    return json.loads(ducto("list", "--json"))


def leave(url: str, folder: Path, *charges: Charge) -> JournalWriter:
    """Records as a process leaves them, which still holds them."""
    writer = JournalWriter(BooksFolder(folder, PostgresStore(url).books_name or ""), max_bytes=100_000)

    async def append() -> None:
        for charge in charges:
            await writer.append(entry_of(charge) or b"")

    asyncio.run(append())
    return writer


def test_listing_and_replaying(url: str, folder: Path) -> None:
    assert "Nothing is outstanding" in ducto("list")
    assert "0 settles booked" in ducto("replay")
    charges = [Charge(user_id="u", amount=7, idempotency_key=f"k{number}", force=True) for number in range(3)]
    writer = leave(url, folder, *charges)
    ((books,)) = listed()
    assert (books["refused"], books["corrupt"]) == (0, 0)
    assert books["books"].startswith("postgresql://")
    (segment,) = books["segments"]
    assert (segment["held"], segment["outstanding"], segment["corrupt"]) == (True, 3, 0)
    assert "0 settles booked" in ducto("replay")
    writer.close()
    assert listed()[0]["segments"][0]["held"] is False
    assert Path(segment["path"]).name in ducto("list")
    assert "3 settles booked, 0 refused, 0 outstanding" in ducto("replay")
    assert listed()[0]["segments"] == []

    async def balance() -> int:
        async with PostgresStore(url) as store:
            return (await store.get_balance("u")).balance

    assert asyncio.run(balance()) == -21


def test_what_is_refused_or_damaged_is_shown(url: str, folder: Path) -> None:
    leave(url, folder, Charge(user_id="u", amount=7, idempotency_key="k", team_id="none", force=True)).close()
    damaged = leave(url, folder, Charge(user_id="u", amount=7, idempotency_key="d", force=True))
    damaged.close()
    path = segments(folder, PostgresStore(url).books_name or "")[-1]
    path.write_bytes(path.read_bytes().replace(b'"u"', b'"v"'))
    assert "1 refused" in ducto("replay", code=1)
    (books,) = listed()
    assert (books["refused"], books["corrupt"], books["segments"]) == (1, 1, [])
    assert "postgresql" in ducto("list")


def test_what_the_store_does_not_answer_stays(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCTO_STORE", "postgresql://127.0.0.1:9/nowhere")
    leave(
        "postgresql://127.0.0.1:9/nowhere", folder, Charge(user_id="u", amount=7, idempotency_key="k", force=True)
    ).close()
    assert "1 outstanding" in ducto("replay", code=1)
    assert listed()[0]["segments"][0]["outstanding"] == 1


def test_a_journal_that_is_off_asks_for_its_folder(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUCTO_JOURNAL", "off")
    ducto("list", code=2)
    ducto("replay", code=2)
    assert "Nothing is outstanding" in ducto("list", "--folder", str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:secret@Host/db?sslmode=require", "postgresql://host:5432/db"),
        ("postgresql://host:6000/db%20name", "postgresql://host:6000/db name"),
        ("postgres://me@host", "postgresql://host:5432/me"),
        ("postgresql:///db?host=/var/run", "postgresql:///var/run:5432/db"),
        ("postgresql://me@[::1]:5433/db", "postgresql://[::1]:5433/db"),
    ],
)
def test_the_name_of_the_books_has_no_login(url: str, name: str) -> None:
    assert PostgresStore(url).books_name == name
