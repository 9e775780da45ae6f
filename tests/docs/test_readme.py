"""The README is short: two commands, an example of twenty lines, a table of stores and one of doors."""

from __future__ import annotations

import re

from ducto.stores.base import CreditStore
from tests.docs.markdown_files import ROOT, blocks_of

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_begins_with_two_commands_that_are_targets() -> None:
    first = blocks_of(README)[0]
    commands = [line.partition("#")[0].split() for line in first.text.splitlines()]
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert first.language == "sh"
    assert len(commands) == 2
    assert all(program == "make" and target in targets for program, target in commands)


def test_its_example_has_at_most_twenty_lines() -> None:
    (example,) = [block for block in blocks_of(README) if block.language == "python"]
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 20


def test_its_tables_have_every_store_and_every_door() -> None:
    def rows(head: str) -> str:
        return TEXT.partition(f"| {head} |")[2].partition("\n\n")[0]

    published = (path.stem for path in (ROOT / "ducto/interface").glob("*.py") if path.stem not in ("__init__", "base"))
    stores = {
        name
        for module in published
        for name, value in vars(__import__(f"ducto.interface.{module}", fromlist=["*"])).items()
        if isinstance(value, type) and issubclass(value, CreditStore)
    }
    assert len(stores) >= 4
    assert {name for name in stores if f"`{name}" not in rows("Store")} == set()
    for door in (
        "build_gateway",
        "MeteringMiddleware",
        "RequireCredits",
        "metered_transport",
        "ducto.middleware.litellm.hook",
        "@metered",
        "CreditManager.meter",
    ):
        assert f"`{door}`" in rows("Door")
