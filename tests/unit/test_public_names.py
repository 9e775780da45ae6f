"""`import ducto`: what it offers, and what it does not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ducto

#: These names load what they are made of.
DOORS = {"MeteringMiddleware", "build_gateway", "metered"}


def packages_loaded_by(statement: str) -> set[str]:
    """The packages outside the standard library that a fresh process has loaded after `statement`."""
    program = f"""
import sys
before = set(sys.modules)
{statement}
print(*{{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if not name.startswith("_sysconfigdata")}


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert ducto.__all__ == sorted(ducto.__all__)
    for name in ducto.__all__:
        assert getattr(ducto, name).__name__ == name
        assert getattr(ducto, name) is vars(ducto)[name]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        ducto.Nonsense  # noqa: B018


def test_type_checkers_see_what_is_loaded() -> None:
    """The imports that only type checkers read name the modules that the names are loaded from."""
    tree = ast.parse(Path(str(ducto.__file__)).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert shown == ducto._MODULES
    assert sorted(shown) == ducto.__all__


def test_import_loads_nothing() -> None:
    assert packages_loaded_by("import ducto") == {"ducto"}


def test_names_load_the_core_alone() -> None:
    names = ", ".join(set(ducto.__all__) - DOORS)
    core = {"ducto", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert packages_loaded_by(f"from ducto import {names}") == core
