"""For all tests: one seed for the model tests, printed at the end with what they did, also where several processes
share the tests; a folder for the settle journal; and an eye on secrets in what tests print.

Replay a run with `DUCTO_MODEL_SEED=<seed> pytest tests/model`, or with pytest's own `--hypothesis-seed`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.canaries.watching import pytest_runtest_makereport  # noqa: F401 - a hook: what it looks at, it says

_SAID = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SAID] = []
    seed = config.getoption("hypothesis_seed", default=None)
    if seed is not None:
        os.environ["DUCTO_MODEL_SEED"] = str(seed)
    # Processes that pytest-xdist starts inherit it.
    os.environ.setdefault("DUCTO_MODEL_SEED", str(secrets.randbelow(2**32)))
    if "DUCTO_JOURNAL" not in os.environ:
        # Tests of stores that last have a journal as an app has, and never in the home folder.
        os.environ["DUCTO_JOURNAL"] = tempfile.mkdtemp(prefix="ducto-journal-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("DUCTO_JOURNAL"), ignore_errors=True))


def pytest_sessionfinish(session: pytest.Session) -> None:
    model = sys.modules.get("tests.model.settings")  # Loaded where model tests ran.
    said = [] if model is None else model.summary()
    told = getattr(session.config, "workeroutput", None)
    if told is None:
        session.config.stash[_SAID] += said
    else:
        told["model"] = said


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_SAID] += getattr(node, "workeroutput", {}).get("model", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    said = config.stash[_SAID]
    if said:
        terminalreporter.write_line(f"model test: replay with DUCTO_MODEL_SEED={os.environ['DUCTO_MODEL_SEED']}")
    for line in sorted(said):
        terminalreporter.write_line(f"model test: {line}")


@pytest.fixture
def books_folder() -> Iterator[Path]:
    """Where an embedded Postgres may keep its books: short, because the path of a unix socket may have about a hundred
    characters, and not below pytest's folders, which every session that starts closes to other users.
    """
    with tempfile.TemporaryDirectory(prefix="ducto-") as made:
        yield Path(made)
