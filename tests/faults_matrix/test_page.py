"""The page on faults names tests that exist, and a test or a reason for every fault."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from tests.docs.markdown_files import ROOT, rows_of

PAGE = ROOT / "docs" / "faults.md"
SECTIONS = ["Processes", "Postgres", "PostgREST", "Redis", "Clients", "Providers", "Rights and secrets"]
_TEST = re.compile(r"`((?:tests|ducto)/[\w/]+\.py)::([\w:]+)`")
#: Faults without a test of their own; each has an argument on the page.
MOST_ARGUED = 4
LEAST_AUTOMATED = 38


def faults() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Of each row: the fault, what happens, and the tests as file and name."""
    for section in SECTIONS:
        for fault, happens, shown_by in rows_of(PAGE, heading=section):
            yield fault, happens, _TEST.findall(shown_by)


@functools.cache
def names_in(path: str) -> frozenset[str]:
    """The functions of a file, those of classes as `Class::function`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{one.name}" for one in inner}
    return frozenset(found)


@pytest.mark.parametrize(("fault", "tests"), [(fault, tests) for fault, _, tests in faults() if tests])
def test_the_tests_of_a_fault_exist(fault: str, tests: list[tuple[str, str]]) -> None:
    for path, name in tests:
        assert name.rpartition("::")[2].startswith(("test_", "check_")), name
        assert (ROOT / path).is_file(), f"{fault}: there is no {path}"
        assert name in names_in(path), f"{fault}: {path} has no {name}"


def test_nearly_every_fault_has_a_test_and_the_others_a_reason() -> None:
    rows = list(faults())
    assert len({fault for fault, *_ in rows}) == len(rows)
    argued = [(fault, happens) for fault, happens, tests in rows if not tests]
    assert len(rows) - len(argued) >= LEAST_AUTOMATED
    assert len(argued) <= MOST_ARGUED
    assert all(happens.startswith("Not automated: ") for _, happens in argued)


def test_no_test_that_the_page_names_is_overlooked() -> None:
    """Every name in the form of a test is one that was looked up above, or stands in the text above the tables."""
    in_rows = {f"{path}::{name}" for *_, tests in faults() for path, name in tests}
    named = {f"{path}::{name}" for path, name in _TEST.findall(PAGE.read_text(encoding="utf-8"))}
    for each in named - in_rows:
        path, _, name = each.partition("::")
        assert name in names_in(path), each
