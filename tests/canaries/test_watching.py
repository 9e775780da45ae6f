"""The hook that watches the suite does find what was printed and logged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = """
import logging, sys

def test_that_prints(): print("the key is canary-of-mine")
def test_that_logs(): logging.getLogger("x").debug("postgresql://authenticator:for-tests-only@host")
def test_that_is_quiet(): print("nothing")
"""


def test_a_secret_in_the_output_of_a_test_fails_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.canaries.watching import pytest_runtest_makereport  # noqa: F401\n"
    )
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--log-level=DEBUG", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "canary-of- is in what was printed or logged" in done.stdout
    assert "for-tests-only is in what was printed or logged" in done.stdout
