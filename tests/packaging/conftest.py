from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.support import Distributions, Environment, build, copy_project, files_in

EPOCH_SECONDS = 1_700_000_000

#: Files that lie about in a developer's folder; none of them is to be shipped.
LITTER = (
    ".env",
    ".servers/postgres/data",
    ".venv/pyvenv.cfg",
    "benchmarks/results/run.json",
    "build/lib/ducto/old.py",
    "dist/ducto-0.0.0-py3-none-any.whl",
    "ducto.egg-info/PKG-INFO",
    "ducto/.env",
    "ducto/__pycache__/events.cpython-311.pyc",
    "ducto/evil.pth",
    "evil.pth",
    "migrations/.env",
    "migrations/functions/__pycache__/x.pyc",
    "tests/__pycache__/x.pyc",
)


@dataclass(frozen=True)
class Built:
    """The distributions, built in a littered copy, and the files that the copy had without the litter."""

    distributions: Distributions
    project: Path
    project_files: set[str]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    project = folder / "project"
    copy_project(project)
    project_files = files_in(project)
    for name in LITTER:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os  # litter\n", encoding="utf-8")
    return Built(build(project, folder / "out", epoch_seconds=EPOCH_SECONDS), project, project_files)


@pytest.fixture(scope="session")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and no extra."""
    return Environment(tmp_path_factory.mktemp("bare") / "venv", str(built.distributions.wheel))


@pytest.fixture(scope="session")
def whole(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with all extras but the LiteLLM proxy."""
    return Environment(tmp_path_factory.mktemp("whole") / "venv", f"{built.distributions.wheel}[all]")
