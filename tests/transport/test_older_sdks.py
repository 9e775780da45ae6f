"""The tests of the SDKs again, with the majors before those that are installed here, each pair in its own environment.

The codings of content that need a package are tested there too, with the packages that these clients decode with.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.transport.environments import python_with

ROOT = Path(__file__).resolve().parents[2]
FILES = ("tests/transport/test_sdks.py", "tests/transport/test_codings.py")
FAMILIES = {
    "openai-1": ("openai>=1.60,<2", "anthropic>=0.80,<1", "brotli>=1.1", "zstandard>=0.23"),
    "openai-2": ("openai>=2,<3", "anthropic>=1,<2", "brotli>=1.2", "backports.zstd>=1.0"),
}
#: Warnings of releases that are not developed any more are not ours to mend.
OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "default")


@pytest.fixture(scope="module")
def runs() -> Iterator[Mapping[str, subprocess.Popen[str]]]:
    """A run for each family, side by side, since each of them mostly waits."""
    pythons = {family: python_with(f"sdks-{family}", wanted) for family, wanted in FAMILIES.items()}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    started = {
        family: subprocess.Popen(
            [str(python), "-m", "pytest", *OPTIONS, *FILES],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for family, python in pythons.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_majors_before(family: str, runs: Mapping[str, subprocess.Popen[str]]) -> None:
    told, _ = runs[family].communicate(timeout=180)
    assert runs[family].returncode == 0, told[-5000:]
    assert re.search(r"^\d\d passed", told, re.MULTILINE), told[-500:]
    assert "skipped" not in told
