"""The page about the command line: it has every command, what it shows exists, and its examples run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ducto import CreditManager
from ducto.cli import app
from tests.cli.conftest import Ducto
from tests.docs.markdown_files import MARKDOWN_FILES, ROOT, blocks_of, prose_of

PAGE = ROOT / "docs/command-line.md"


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by its path, groups left out."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, each in below.items():
        yield from _commands(each, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))
GROUPS = {path[0] for path in COMMANDS if len(path) == 2}


def _mentions(path: Path) -> Iterator[list[str]]:
    """What follows `ducto` in the blocks of shell of a file, and in what its text sets as code."""
    shell = "\n".join(block.text for block in blocks_of(path) if block.language == "sh")
    inline = "\n".join(re.findall(r"`([^`]+)`", prose_of(path)))
    for rest in re.findall(r"(?:^|\s)ducto ([a-z]+\b[^\n>|#]*)", f"{shell}\n{inline}", re.MULTILINE):
        yield rest.split()


def test_commands_and_options_that_the_documentation_shows_exist() -> None:
    for path in MARKDOWN_FILES:
        for words in _mentions(path):
            if words in [[group] for group in GROUPS]:
                continue
            name = tuple(words[: 2 if words[0] in GROUPS else 1])
            assert name in COMMANDS, f"{path.relative_to(ROOT)}: ducto {' '.join(words)}"
            options = {each for parameter in COMMANDS[name].params for each in parameter.opts} | {"--help"}
            shown = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--"}
            assert shown <= options, f"{path.relative_to(ROOT)}: ducto {' '.join(words)}"


def test_the_page_shows_every_command() -> None:
    shown = {tuple(words[: 2 if words[0] in GROUPS else 1]) for words in _mentions(PAGE)}
    assert shown == set(COMMANDS)


def test_every_command_and_every_option_says_what_it_is_for() -> None:
    for path, command in COMMANDS.items():
        assert command.help, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name}"


def test_every_command_has_json_but_the_server_that_runs_until_it_is_stopped() -> None:
    without = {path for path, command in COMMANDS.items() if "--json" not in _options(command)}
    assert without == {("gateway",)}


def test_every_write_takes_a_key() -> None:
    keyed = {path for path, command in COMMANDS.items() if "--key" in _options(command)}
    assert keyed == {
        ("credits", "add"),
        ("credits", "charge"),
        ("credits", "refund"),
        ("pricing", "import"),
        ("pricing", "set"),
        ("teams", "create"),
        ("teams", "fund"),
    }


def _options(command: Any) -> set[str]:
    return {each for parameter in command.params for each in parameter.opts}


def test_the_examples_of_the_page_run(ducto: Ducto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, on one database; only the names in capitals stand for ids that a run before has shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUCTO_DATABASE_URL", ducto.url)
    blocks = blocks_of(PAGE)
    (prices,) = [block.text for block in blocks if block.language == "yaml"]
    Path("prices.yaml").write_text(prices)
    ids = {"RESERVATION": ducto.did(_hold)}
    lines = [line for block in blocks if block.language == "sh" for line in block.text.splitlines()]
    ran = 0
    for line in lines:
        program, *arguments = shlex.split(line)
        if program != "ducto":
            assert program == "export", line
            continue
        given = [ids.get(each, each) for each in arguments]
        assert not {"TRANSACTION", "TEAM", "RESERVATION"} & set(given), line
        printed = ducto.run(*given)
        for name, pattern in (("TRANSACTION", r"(txn_u\S+)"), ("TEAM", r"team id +(\S+)")):
            found = re.search(pattern, printed) if name not in ids and arguments[0] in ("credits", "teams") else None
            if found and arguments[1] in ("charge", "create"):
                ids[name] = found[1]
        ran += 1
    assert ran > 45


async def _hold(manager: CreditManager) -> str:
    await manager.add_credits("bob", 1_000)
    held = await manager.reserve("bob", 200)
    assert held.reservation_id is not None
    return held.reservation_id
