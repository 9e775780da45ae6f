"""The example runs, and what the page about the hook shows is the example's and the code's."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from typing import Any

from tests.docs.markdown_files import ROOT, blocks_of, rows_of

PAGE = ROOT / "docs/litellm.md"
EXAMPLE = ROOT / "examples/litellm_proxy"
PACKAGE = ROOT / "ducto/middleware/litellm"


def test_example_runs() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "examples/litellm_proxy/run.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout.splitlines()
    assert "bob: 402 insufficient_credits" in said
    assert "charged: 7 as the provider said" in said
    assert "the books agree: True" in said


def test_module_on_the_page_is_the_examples() -> None:
    (shown,) = [block.text for block in blocks_of(PAGE) if block.language == "py"]
    assert shown in (EXAMPLE / "hooks.py").read_text(encoding="utf-8")


def test_callback_on_the_page_is_one_that_the_example_names() -> None:
    (shown,) = [block.text for block in blocks_of(PAGE) if block.language == "yml"]
    named = shown.partition("callbacks: ")[2].strip()
    assert named in (EXAMPLE / "config.yaml").read_text(encoding="utf-8")


def test_options_on_the_page_are_the_hooks() -> None:
    """Read as text, since LiteLLM is not installed where the tests run."""
    listed = {_code(name): ast.literal_eval(_code(default)) for name, default, _ in _rows("Options of DuctoHook")}
    assert listed == _keyword_defaults((PACKAGE / "proxy_hook.py").read_text(encoding="utf-8"))


def test_variables_on_the_page_are_the_environments() -> None:
    source = (PACKAGE / "environment.py").read_text(encoding="utf-8")
    listed = {_code(name) for name, _, _ in _rows("Setting it up")}
    assert listed == set(re.findall(r'"(DUCTO_\w+)"', source))
    assert all(f"* `{name}`" in source for name in listed)


def _rows(heading: str) -> list[list[str]]:
    return rows_of(PAGE, heading=heading)


def _code(cell: str) -> str:
    return re.findall(r"`([^`]+)`", cell)[0]


def _keyword_defaults(source: str) -> dict[str, Any]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {argument.arg: ast.literal_eval(default) for argument, default in named if default is not None}
    raise AssertionError("no __init__ was found")
