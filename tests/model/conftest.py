"""One seed for the whole model test, printed at its end with the number of steps that it took.

Replay a run with `DUCTO_MODEL_SEED=<seed> pytest tests/model`, or with pytest's own `--hypothesis-seed`.
"""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("hypothesis_seed", default=None)
    if seed is not None:
        os.environ["DUCTO_MODEL_SEED"] = str(seed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.model.settings import COMPARED, SEED, STEPS

    if STEPS.taken:
        terminalreporter.write_line(f"model test: {STEPS.taken} steps; replay with DUCTO_MODEL_SEED={SEED}")
    for name, count in sorted(COMPARED.items()):
        terminalreporter.write_line(f"model test: {count} operations compared between memory and {name}")
