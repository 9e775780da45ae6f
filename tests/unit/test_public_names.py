"""`import ducto`: what it offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ducto


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert ducto.__all__ == sorted(ducto.__all__)
    for name in ducto.__all__:
        assert getattr(ducto, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        ducto.Nonsense  # noqa: B018


def test_import_loads_the_core_alone() -> None:
    program = (
        "import sys, ducto; "
        "extras = {'uvicorn', 'httptools', 'typer', 'rich', 'yaml', 'openai', 'anthropic', 'asyncpg', 'redis', "
        "'litellm', 'starlette', 'httpx', 'pytest'}; "
        "print(sorted(extras & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
