"""The command line, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


def ducto(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ducto", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        check=False,
    )


def test_demo_keeps_its_books_over_a_restart(books_folder: Path) -> None:
    demo = ducto("demo", DUCTO_HOME=str(books_folder))
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The books agree" in demo.stdout
    again = ducto("demo", "--json", DUCTO_HOME=str(books_folder))
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["ok"] is True
    assert len(told["steps"]) >= 8
    assert all(step["as_expected"] for step in told["steps"])
    assert (books_folder / "postgres").is_dir()


def test_demo_in_memory_ends_with_books_that_agree() -> None:
    demo = ducto("demo", "--store", "memory")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The books agree" in demo.stdout
    assert "WRONG" not in demo.stdout
    for seen in ("402 insufficient_credits", "hold released", "left after 5 chunks", "the same answer"):
        assert seen in demo.stdout


@contextmanager
def gateway(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ducto", "gateway", "--store", "memory", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", first)
        assert found, first + (process.stderr.read() if process.stderr and process.poll() is not None else "")
        yield process, found.group()
    finally:
        process.kill()
        process.communicate()


def test_gateway_serves_until_it_is_stopped() -> None:
    with gateway() as (process, url):
        answer = httpx.post(
            f"{url}/v1/chat/completions",
            headers={"authorization": "Bearer demo-key-alice"},
            json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]},
        )
        assert answer.status_code == 200
        assert int(answer.headers["x-ducto-cost"]) > 0
        stranger = httpx.post(f"{url}/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": []})
        assert stranger.status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_port_in_use_is_said_in_a_sentence() -> None:
    with gateway() as (_, url):
        second = ducto("gateway", "--store", "memory", "--port", url.rsplit(":", 1)[1])
    assert second.returncode == 2
    assert "Choose another port" in second.stderr
    assert "Traceback" not in second.stderr


def test_unknown_command_is_a_usage_error() -> None:
    wrong = ducto("demon")
    assert wrong.returncode == 2
    assert "No such command" in wrong.stderr


def test_help_names_every_group_and_completion() -> None:
    told = ducto("--help")
    assert told.returncode == 0
    for name in ("pricing", "credits", "explain", "simulate", "verify", "--install-completion"):
        assert name in told.stdout


def test_completion_script_is_that_of_the_shell() -> None:
    script = ducto(_DUCTO_COMPLETE="source_bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.returncode == 0, script.stderr
    assert "complete" in script.stdout
    assert "_DUCTO_COMPLETE=complete_bash" in script.stdout
    words = ducto(_DUCTO_COMPLETE="complete_bash", COMP_WORDS="ducto credits ch", COMP_CWORD="2")
    assert words.stdout.split() == ["charge"]


def test_books_in_a_folder_stay_from_one_command_to_the_next(tmp_path: Path, books_folder: Path) -> None:
    (tmp_path / ".env").write_text(f"# where the books are\nexport DUCTO_STORE='embedded:{books_folder}/books'\n")
    assert ducto("setup", folder=tmp_path).returncode == 0
    assert ducto("credits", "add", "alice", "500", folder=tmp_path).returncode == 0
    standing = ducto("credits", "balance", "alice", "--json", folder=tmp_path)
    assert json.loads(standing.stdout)["balance"] == 500
    assert standing.stderr == ""


def test_without_the_extra_a_sentence_says_which(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    bare = ducto("--help", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert bare.returncode == 2
    assert bare.stderr == "ducto: The command line needs the extra 'cli': pip install 'ducto[cli]'\n"


def test_store_of_no_known_kind_is_refused_without_repeating_it() -> None:
    wrong = ducto("demo", DUCTO_STORE="mysql://root:secret@localhost/db")
    assert wrong.returncode == 2
    assert "postgresql://" in wrong.stderr
    assert "secret" not in wrong.stderr


def test_migrate_prints_the_sql_or_asks_which_database() -> None:
    printed = ducto("migrate", "--print")
    assert printed.returncode == 0
    assert "create table ducto.accounts" in printed.stdout.lower()
    unnamed = ducto("migrate")
    assert unnamed.returncode == 2
    assert "DUCTO_DATABASE_URL" in unnamed.stderr
