"""What a user may get wrong, by message and exit code; nobody sees a traceback or a password."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ducto.cli import app
from ducto.cli.dotenv import load_dotenv, parse_dotenv
from ducto.errors import ConfigError
from ducto.testing.servers.processes import free_port
from tests.cli.conftest import Ducto

WITH_SECRET = [
    "postgresql://owner:hunter2@db/books",
    "postgresql://owner@db/books?password=hunter2",
    "postgresql://db/books?user=owner&sslpassword=hunter2",
    "https://service:hunter2@project.supabase.co",
    "mysql://root:hunter2@db",
    "postgresql://owner:hunter2@[db/books",
]


@pytest.mark.parametrize("url", WITH_SECRET)
def test_a_password_on_the_command_line_is_refused_and_the_variable_named(ducto: Ducto, url: str) -> None:
    for command, option, variable in (
        (("credits", "balance", "alice"), "--store", "DUCTO_STORE"),
        (("migrate",), "--database-url", "DUCTO_DATABASE_URL"),
        (("setup",), "--database-url", "DUCTO_DATABASE_URL"),
        (("gateway",), "--store", "DUCTO_STORE"),
        (("demo",), "--store", "DUCTO_STORE"),
    ):
        said = ducto.refused(*command, option, url, code=2)
        assert f"{option} has a password in it" in said
        assert variable in said
        assert "hunter2" not in said


def test_a_url_without_a_password_may_be_an_option(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUCTO_STORE")
    assert ducto.json("credits", "balance", "alice", "--store", ducto.url)["balance"] == 0


def test_no_store_is_named(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUCTO_STORE")
    assert "Which store? Set DUCTO_STORE" in ducto.refused("verify", code=2)
    monkeypatch.setenv("DUCTO_STORE", "redis://:hunter2@cache")
    said = ducto.refused("verify", code=2)
    assert "A store is named as" in said
    assert "hunter2" not in said


def test_a_store_that_is_not_there(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCTO_STORE", f"postgresql://owner:hunter2@127.0.0.1:{free_port()}/books")
    said = ducto.refused("credits", "add", "alice", "5", "--key", "payment-7", code=1)
    assert "Postgres cannot be reached" in said
    assert "--key payment-7" in said, "nobody knows whether it was done"
    assert "hunter2" not in said
    last = ducto.refused("verify", "--json", code=1).splitlines()[-1]
    assert json.loads(last)["error"] == "store_unavailable"


def test_a_database_without_tables(monkeypatch: pytest.MonkeyPatch, ducto: Ducto) -> None:
    monkeypatch.setenv("DUCTO_STORE", ducto.url.rsplit("/", 1)[0] + "/postgres")
    assert "ducto migrate" in ducto.refused("credits", "balance", "alice", code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("add", "alice", "0"), 2, "whole number (int) of credits from 1"),
        (("add", "alice", "1.5"), 2, "valid integer"),
        (("add", "alice", "lots"), 2, "valid integer"),
        (("add", "alice", str(2**53)), 2, "2^53-1"),
        (("add", "alice", "5", "--type", "gift"), 2, "gift"),
        (("add", "alice", "5", "--expires", "soon"), 2, "--expires takes"),
        (("add", "alice", "5", "--expires", "2001-01-01"), 2, "expires_at"),
        (("add", "", "5"), 2, "must not be empty"),
        (("add", "alice", "5", "--key", ""), 2, "idempotency_key"),
        (("add", "alice"), 2, "CREDITS"),
        (("charge", "poor", "5"), 1, "5"),
        (("refund", "txn_nothing"), 1, "no transaction 'txn_nothing'"),
        (("history", "alice", "--cursor", "here"), 2, "next_cursor"),
        (("history", "alice", "--limit", "0"), 2, "--limit"),
    ],
)
def test_mistakes_with_credits(ducto: Ducto, arguments: tuple[str, ...], code: int, told: str) -> None:
    assert told in ducto.refused("credits", *arguments, code=code)


def test_a_key_with_other_arguments(ducto: Ducto) -> None:
    ducto.run("credits", "add", "twice", "5", "--key", "payment-1")
    said = json.loads(ducto.refused("credits", "add", "twice", "6", "--key", "payment-1", "--json", code=1))
    assert (said["error"], said["details"]["mismatch"]) == ("idempotency_mismatch", ["amount"])


def test_mistakes_elsewhere(ducto: Ducto) -> None:
    assert "no team 't1'" in ducto.refused("teams", "members", "t1", code=1)
    assert "no team 't1'" in ducto.refused("teams", "add-member", "t1", "alice", code=1)
    assert "no team 't1'" in ducto.refused("teams", "fund", "t1", "5", code=1)
    assert "limit" in ducto.refused("caps", "set", "alice", "--window", "daily", "--", "-5", code=2)
    assert "window" in ducto.refused("caps", "set", "alice", "5", code=2)
    assert "no reservation" in ducto.refused("reservations", "release", "alice", "rsv_1", code=1).lower()
    assert "No such command" in ducto.refused("usage", "yearly", code=2)


def test_migrate_by_the_variable_and_setup_by_the_store(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DUCTO_DATABASE_URL" in ducto.refused("migrate", code=2)
    monkeypatch.setenv("DUCTO_DATABASE_URL", ducto.url)
    assert ducto.run("migrate") == "Everything is up to date.\n"
    assert ducto.json("migrate") == {"success": True, "errors": [], "applied": [], "newer": []}
    printed, said = ducto.ended("migrate", "--grant-to", "nobody_of_that_name", code=1)
    assert printed == "Nothing was changed.\n"
    assert "no role 'nobody_of_that_name'" in said
    monkeypatch.delenv("DUCTO_DATABASE_URL")
    assert ducto.json("setup")["success"] is True


def test_what_a_dotenv_file_may_say() -> None:
    text = """
# a comment
DUCTO_STORE=postgresql://owner:pa#ss$HOME@db/books   # the store
export DUCTO_A='single $quotes # kept'
DUCTO_B="a \\"word\\"\\n$HOME"  # and a comment
DUCTO_EMPTY=
"""
    assert parse_dotenv(text) == {
        "DUCTO_STORE": "postgresql://owner:pa#ss$HOME@db/books",
        "DUCTO_A": "single $quotes # kept",
        "DUCTO_B": 'a "word"\n$HOME',
        "DUCTO_EMPTY": "",
    }


@pytest.mark.parametrize("line", ["hunter2", "DUCTO_STORE='hunter2", 'DUCTO_STORE="hunter2" more', "1A=hunter2"])
def test_a_dotenv_line_at_fault_is_named_and_not_repeated(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as caught:
        parse_dotenv(f"DUCTO_A=1\n{line}\n")
    assert "hunter2" not in str(caught.value)


def test_a_dotenv_file_sets_what_is_not_set_and_only_what_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"DUCTO_STORE": "memory"}
    load_dotenv(environment)  # There is no file, which is fine.
    Path(".env").write_text("DUCTO_STORE=other\nDUCTO_DATABASE_URL=db\nPYTHONPATH=evil\nSUPABASE_SERVICE_ROLE_KEY=k\n")
    load_dotenv(environment)
    assert environment == {
        "DUCTO_STORE": "memory",
        "DUCTO_DATABASE_URL": "db",
        "SUPABASE_SERVICE_ROLE_KEY": "k",
    }
    with pytest.raises(ConfigError, match=r"named\.env, which is not there"):
        load_dotenv({"DUCTO_ENV_FILE": "named.env"})
    Path("named.env").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_dotenv({"DUCTO_ENV_FILE": "named.env"})


def test_a_fault_of_ours_shows_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback of typer's would print them all, and the URL of the store is one."""
    monkeypatch.setenv("DUCTO_STORE", "memory")
    monkeypatch.setattr("ducto.cli.running.open_store", None)
    result = CliRunner(env=dict(os.environ)).invoke(app, ["verify"])
    assert isinstance(result.exception, TypeError)
    assert app.pretty_exceptions_enable is False
