"""What is in the wheel and in the source distribution, and that both come out the same every time."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from tests.packaging.conftest import EPOCH_SECONDS, LITTER, Built
from tests.packaging.support import build


def test_wheel_has_the_package_and_its_data_and_nothing_else(built: Built) -> None:
    package = {name for name in built.project_files if name.startswith("ducto/")}
    migrations = {f"ducto/{name}" for name in built.project_files if name.startswith("migrations/")}
    shipped = built.distributions.wheel_files
    metadata = {name for name in shipped if ".dist-info/" in name}
    assert shipped - metadata == package | migrations
    assert {name.partition("/")[2] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_wheel_has_what_code_reads_from_files(built: Built) -> None:
    shipped = built.distributions.wheel_files
    assert "ducto/py.typed" in shipped
    assert "ducto/migrations/permissions.sql" in shipped
    assert "ducto/migrations/0001_accounts_and_ledger.sql" in shipped
    assert "ducto/migrations/functions/deduct.sql" in shipped
    for ending in (".sql", ".lua"):
        of_project = [name for name in built.project_files if name.endswith(ending) and not name.startswith("tests/")]
        assert len([name for name in shipped if name.endswith(ending)]) == len(of_project)


def test_wheel_has_no_tests_no_path_file_and_no_litter(built: Built) -> None:
    shipped = built.distributions.wheel_files
    assert not [name for name in shipped if name.startswith("tests/") or name.endswith((".pth", ".pyc", ".env"))]
    with zipfile.ZipFile(built.distributions.wheel) as archive:
        assert not [name for name in shipped if b"# litter" in archive.read(name)]


def test_sdist_has_the_project_without_what_git_ignores(built: Built) -> None:
    shipped = built.distributions.sdist_files
    assert not shipped & set(LITTER)
    # A file that is missing here belongs into [tool.hatch.build.targets.sdist] of pyproject.toml.
    assert shipped - {"PKG-INFO"} == built.project_files


def test_both_are_the_same_bytes_wherever_and_whenever_they_are_built(built: Built, tmp_path: Path) -> None:
    project = tmp_path / "elsewhere" / "another name"
    shutil.copytree(built.project, project)
    for path in project.rglob("*"):
        os.utime(path, (2_000_000_000, 2_000_000_000))
    again = build(project, tmp_path / "out", epoch_seconds=EPOCH_SECONDS)
    for first, second in (
        (built.distributions.wheel, again.wheel),
        (built.distributions.sdist, again.sdist),
    ):
        assert first.name == second.name
        assert _digest(first) == _digest(second), first.name


def test_the_times_in_both_are_those_that_were_asked_for(built: Built) -> None:
    with tarfile.open(built.distributions.sdist) as archive:
        assert {member.mtime for member in archive.getmembers()} == {EPOCH_SECONDS}
    moment = datetime.datetime.fromtimestamp(EPOCH_SECONDS, datetime.UTC)
    with zipfile.ZipFile(built.distributions.wheel) as wheel:
        times = {info.date_time for info in wheel.infolist()}
    # Zip counts in steps of two seconds.
    assert {time[:5] for time in times} == {moment.timetuple()[:5]}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
