"""Building the distributions from a copy of the project, and installing them into environments of their own."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Distributions", "Environment", "build", "copy_project", "files_in", "resolve_only", "run"]

ROOT = Path(__file__).resolve().parents[2]


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run to the end, without this tree on the path; says what the program said where it fails."""
    surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**surroundings, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not check or finished.returncode == 0, f"{command}:\n{finished.stdout}\n{finished.stderr}"
    return finished


def copy_project(target: Path) -> None:
    """The project without what `.gitignore` names."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip("/") for line in lines if line and not line.startswith("#")]

    def ignored(folder: str, names: list[str]) -> set[str]:
        found = set()
        for name in names:
            path = (Path(folder) / name).relative_to(ROOT).as_posix()
            if name == ".git" or any(
                fnmatch.fnmatch(path if "/" in pattern else name, pattern) for pattern in patterns
            ):
                found.add(name)
        return found

    shutil.copytree(ROOT, target, ignore=ignored)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Distributions:
    wheel: Path
    sdist: Path

    @property
    def wheel_files(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def sdist_files(self) -> set[str]:
        """Relative to the folder that the archive holds."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


def build(project: Path, target: Path, *, epoch_seconds: int) -> Distributions:
    """What `make wheel` does in `project`; its isolated environments are filled by uv, which is quicker."""
    # fmt: off
    run(
        sys.executable, "-m", "build", "--installer", "uv", "--outdir", target, project,
        env={"SOURCE_DATE_EPOCH": str(epoch_seconds)},
    )
    # fmt: on
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Distributions(wheel, sdist)


class Environment:
    """An empty virtual environment with one distribution and what it needs."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder
        run(_uv(), "venv", "--quiet", "--python", sys.executable, folder)
        folder.chmod(0o700)  # else it is not taken for the runtime folder below
        run(_uv(), "pip", "install", "--quiet", "--python", self.python, requirement)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def run_program(self, program: str) -> str:
        """Run Python source, away from the project and with warnings as errors; what it printed."""
        # A library warns where this one is not set, as it is not outside of a login.
        surroundings = {"XDG_RUNTIME_DIR": str(self.folder)}
        return run(self.python, "-W", "error", "-c", program, cwd=self.folder, env=surroundings).stdout.strip()

    def distributions(self) -> set[str]:
        lines = run(_uv(), "pip", "freeze", "--python", self.python).stdout.splitlines()
        return {line.partition("==")[0].partition(" @ ")[0].lower() for line in lines}


def resolve_only(environment: Environment, requirement: str) -> str:
    """What an install of `requirement` would bring, by metadata alone."""
    finished = run(_uv(), "pip", "install", "--dry-run", "--python", environment.python, requirement)
    return finished.stderr + finished.stdout


def _uv() -> str:
    return str(Path(sys.executable).parent / "uv")
