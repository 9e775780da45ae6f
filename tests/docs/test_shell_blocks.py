"""The blocks of shell: what they install exists, what they make is a target, and what they run does run.

All blocks of a page run in order, by one bash, in a folder of their own with a database of their own. Those of
docs/command-line.md run in tests/cli/test_reference.py.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.testing.servers import new_database, postgres_server
from ducto.testing.servers.processes import free_port
from tests.docs.markdown_files import MARKDOWN_FILES, ROOT, blocks_of, prose_of

SHELL = {
    path: blocks
    for path in MARKDOWN_FILES
    if (blocks := [block for block in blocks_of(path) if block.language == "sh"])
}
ELSEWHERE = {ROOT / "docs/command-line.md"}
PAGES = [path for path in SHELL if path not in ELSEWHERE]

#: URLs that stand for the reader's own.
PLACEHOLDER = re.compile(r"postgresql://\w+:password@host/database")

#: What pages speak of as the reader's own.
READERS_APP = Path(__file__).with_name("readers_app.py")
READERS_PRICES = "models:\n  gpt-4o: {unit: usd, input: 2.50, output: 10}\n"

#: Before the blocks of a page: what its reader has done by then.
DONE_BEFORE = {
    "docs/self-test.md": "ducto setup && ducto pricing set pricing.yaml --key prices",
}
#: What a page says that comes out, in the order in which it does.
PRINTED = {
    "docs/quickstart.md": ["200 OK", "x-ducto-cost", "402", "insufficient_credits", "deduction", "The books agree"],
    "docs/self-test.md": 3 * ["Every model route is metered"],
    "docs/stores.md": ["applied 0001"],
    "docs/postgres.md": ["applied 0001"],
    "docs/supabase.md": ["applied 0001"],
    "docs/operations.md": ["applied 0001", "grant to application"],
}


def _page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _installs(path: Path) -> Iterator[tuple[list[str], str]]:
    """The requirements of each `pip install`, with what else the same block runs; those in the text as well."""
    for block in SHELL.get(path, []):
        for line in block.text.splitlines():
            if line.startswith("pip install "):
                yield shlex.split(line)[2:], block.text
    for line in re.findall(r"`pip install ([^`]+)`", prose_of(path)):
        yield shlex.split(line), ""


@pytest.mark.parametrize("path", MARKDOWN_FILES, ids=_page)
def test_what_is_installed_exists(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirements, script in _installs(path):
        for requirement in (each for each in requirements if not each.startswith("-")):
            name, _, extras = requirement.removesuffix("]").partition("[")
            if name == "ducto":
                given = set(extras.split(",")) - {""}
                assert given <= set(project["optional-dependencies"]), requirement
                if re.search(r"^(?:\w+=\S+ )*ducto ", script, re.MULTILINE):
                    assert "cli" in given, f"{requirement} brings no command line, which the block uses"
            else:
                assert importlib.metadata.version(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket's, with the commands of the documentation in `bin`."""
    with tempfile.TemporaryDirectory(prefix="ducto-") as name:
        found = Path(name)
        _command(found / "bin/ducto", f'exec "{sys.executable}" -m ducto "$@"')
        _command(found / "bin/uvicorn", f'exec "{sys.executable}" -m uvicorn "$@"')
        _command(found / "bin/pip", "exit 0")  # looked at above
        _command(found / "bin/make", f'exec "{shutil.which("make")}" -C "{ROOT}" --dry-run "$@"')
        yield found


def _command(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def database_url() -> Iterator[str]:
    """A database, and a role `application` on its server."""
    with asyncio.Runner() as runner:
        opened = new_database(postgres_server())
        database = runner.run(opened.__aenter__())
        try:
            runner.run(_with_application(database.superuser_url))
            yield database.url
        finally:
            runner.run(opened.__aexit__(None, None, None))


async def _with_application(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'application')"):
            await connection.execute("CREATE ROLE application")
    finally:
        await connection.close()


@pytest.mark.parametrize("path", PAGES, ids=_page)
def test_blocks_of_a_page_run(path: Path, folder: Path, database_url: str) -> None:
    _write_files(path, folder)
    script = "\n".join([DONE_BEFORE.get(_page(path), ":"), *(block.text for block in SHELL[path])])
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _prepared(script, port=free_port())],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DUCTO_")},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DUCTO_STORE": database_url,
            "DATABASE_OF_THE_TEST": database_url,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    rest = finished.stdout
    for expected in PRINTED.get(_page(path), []):
        _, found, rest = rest.partition(expected)
        assert found, f"{expected!r} is not printed, or too early:\n{finished.stdout}\n{finished.stderr}"


def _write_files(path: Path, folder: Path) -> None:
    """The files that the page gives ("Let `name` be"), and those that are the reader's own."""
    (folder / "pricing.yaml").write_text(READERS_PRICES, encoding="utf-8")
    (folder / "myapp").mkdir()
    shutil.copy(READERS_APP, folder / "myapp/main.py")
    text = path.read_text(encoding="utf-8")
    for name, content in re.findall(r"Let `([\w.]+)` be\n\n```[a-z]+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")


def _prepared(script: str, *, port: int) -> str:
    """The script on this test's database and port. A server goes to the background, and is waited for."""
    script = PLACEHOLDER.sub("$DATABASE_OF_THE_TEST", script).replace("8000", str(port))
    assert "postgresql:" not in script, "a placeholder that is not that of the other pages"
    waiting = f"until curl -s -o answer http://127.0.0.1:{port}/; do kill -0 $!; sleep 0.1; done"
    return re.sub(r"^(uvicorn .*)$", rf"\1 & trap 'kill %1; wait' EXIT; {waiting}", script, flags=re.MULTILINE)


def test_blocks_were_found() -> None:
    assert len(PAGES) >= 7
    assert {Path(page) for page in (*DONE_BEFORE, *PRINTED)} <= {Path(_page(path)) for path in PAGES}
