"""LiteLLM in a virtual environment of its own, made once and kept: its pins clash with those of others."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["litellm_python", "site_packages"]

_VERSION = "1.106.2"
#: The Python of an environment that has LiteLLM already.
_PYTHON_VARIABLE = "DUCTO_TEST_LITELLM_PYTHON"


@functools.cache
def litellm_python() -> Path:
    """The Python of the environment. Without one and without a package index this fails, and says what to do."""
    named = os.environ.get(_PYTHON_VARIABLE)
    if named:
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"ducto-environments-{os.getuid()}"
    folder.mkdir(mode=0o755, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else; remove it"
    environment = folder / f"litellm-prices-{_VERSION}"
    python = environment / "bin" / "python"
    with (folder / "litellm-prices.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another test run may be making it.
        if not (environment / "complete").exists():
            shutil.rmtree(environment, ignore_errors=True)
            for command in (
                [sys.executable, "-m", "venv", str(environment)],
                [str(python), "-m", "pip", "install", "--quiet", f"litellm=={_VERSION}"],
            ):
                done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
                assert done.returncode == 0, (
                    f"give pip a package index, or point {_PYTHON_VARIABLE} at the python of an environment that has "
                    f"litellm: {done.stderr[-1000:]}"
                )
            (environment / "complete").touch()
    return python


def site_packages() -> Path:
    """Where the environment keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    command = [str(litellm_python()), "-c", code]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
