"""The same tests with the lowest FastAPI that is supported; and what is said where it is older, or missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.transport.environments import python_with

ROOT = Path(__file__).resolve().parents[2]
FILES = ("tests/fastapi/test_require_credits.py", "tests/fastapi/test_middleware_in_fastapi.py")


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lowest() -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = re.fullmatch(r"fastapi>=([\d.]+)", extras["fastapi"][0])
    assert found, extras["fastapi"]
    return found[1]


def test_the_lowest_version() -> None:
    python = python_with("fastapi-lowest", [f"fastapi=={lowest()}.*"])
    # Warnings of a release that is not developed any more are not ours to mend.
    ended = run(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *FILES)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-1000:]
    assert re.search(r"^\d\d passed", ended.stdout, re.MULTILINE), ended.stdout[-500:]


@pytest.mark.parametrize(
    ("fake", "told"),
    [
        ("sys.modules['fastapi'] = None", "pip install 'ducto[fastapi]'"),
        ("import fastapi; fastapi.Depends = lambda dependency=None, *, use_cache=True: None", "FastAPI 0.121 or newer"),
    ],
)
def test_what_is_missing_is_said(fake: str, told: str) -> None:
    program = f"import sys; {fake}; from ducto.middleware import MeteringMiddleware; import ducto.middleware.fastapi"
    ended = run(sys.executable, "-c", program)
    assert "ConfigError" in ended.stderr
    assert told in ended.stderr
