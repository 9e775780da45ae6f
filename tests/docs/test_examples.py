"""Every example runs, offline, as the command line that its docstring gives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.docs.markdown_files import ROOT

#: Example -> a line that it prints when all went well.
EXAMPLES = {
    "quickstart.py": "the books agree: True",
    "decorator.py": "the books agree: True",
    "fastapi_gateway.py": "the books agree: True",
    "starlette_middleware.py": "the books agree: True",
    "teams_and_plans.py": "the books agree: True",
    "custom_store.py": "the store conforms",
    "openai_sdk.py": "the books agree: True",
    "anthropic_sdk.py": "the books agree: True",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{name}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert EXAMPLES[name] in finished.stdout.splitlines(), finished.stdout


def test_every_example_is_run() -> None:
    """Who adds an example adds it above."""
    assert set(EXAMPLES) == {path.name for path in (ROOT / "examples").glob("*.py")}
