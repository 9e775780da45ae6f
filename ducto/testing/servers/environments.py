"""Virtual environments for programs whose dependencies clash with ours, made once by pip and kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ducto.errors import ConfigError

__all__ = ["python_with"]

_INSTALL_SECONDS = 900.0


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment that has `requirements`. Raises `ConfigError` if it cannot be made.

    `name` is for people; the requirements decide whether a kept environment is the right one.
    """
    digest = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"ducto-environments-{os.getuid()}"
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; remove it.")
    environment = folder / f"{name}-{digest}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another test run may be making it.
        if not (environment / "complete").exists():
            _make(environment, requirements)
    return environment / "bin" / "python"


def _make(environment: Path, requirements: Sequence[str]) -> None:
    print(f"installing {', '.join(requirements)} into {environment}, once", file=sys.stderr)
    shutil.rmtree(environment, ignore_errors=True)
    python = environment / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _cannot_make(requirements, str(error)) from None
        if done.returncode != 0:
            raise _cannot_make(requirements, done.stderr[-1000:])
    (environment / "complete").touch()


def _cannot_make(requirements: Sequence[str], why: str) -> ConfigError:
    return ConfigError(
        f"The tests need an environment with {', '.join(requirements)} and pip could not make it; "
        f"give pip a package index that has them. ({why})"
    )
