"""A run: each module measured in a process of its own, kept as JSON with the machine that it ran on."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.figures import Effort, Section
from benchmarks.machine import Machine, describe_machine, load_average

__all__ = ["MODULES", "ModuleRun", "Run", "load", "merged", "run_modules", "save"]

#: Every measurement, in the order of the report: from what needs nothing to what needs servers.
MODULES = (
    "pricing",
    "memory",
    "imports",
    "gateway",
    "streams",
    "postgres",
    "redis",
    "overspend",
    "journal",
    "growth",
    "analytics",
)


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """What one module measured, and when. Without a section it failed, and `error` says why."""

    module: str
    started_at: datetime
    seconds: float
    #: Before it began: other work on the machine is in every figure.
    load_average: float
    section: Section | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Modules measured one after the other on one machine."""

    machine: Machine
    effort: Effort
    modules: list[ModuleRun]

    @property
    def failed(self) -> bool:
        """Whether a module could not measure."""
        return any(each.section is None for each in self.modules)


_RUN = TypeAdapter(Run)


def measured(module: str, effort: Effort) -> Section:
    """Measure one module here."""
    section = importlib.import_module(f"benchmarks.{module}").measure(effort)
    assert isinstance(section, Section), section
    return section


def run_modules(modules: Sequence[str], effort: Effort) -> Run:
    """Measure modules one after the other, each in a new process, so that none leaves the next one its memory.

    One that fails does not take the others' figures away.
    """
    machine = describe_machine()
    return Run(machine, effort, [_run(module, effort) for module in modules])


def _run(module: str, effort: Effort) -> ModuleRun:
    started_at, load, begun = datetime.now(UTC).replace(microsecond=0), load_average(), time.perf_counter()
    section, error = None, None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            section = pool.submit(measured, module, effort).result()
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is kept with the run and printed
            error = f"{type(failure).__name__}: {failure}"
            traceback.print_exc(file=sys.stderr)
    return ModuleRun(module, started_at, round(time.perf_counter() - begun, 1), load, section, error)


def save(run: Run, path: Path) -> None:
    """Keep a run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_RUN.dump_json(run, indent=1) + b"\n")


def load(path: Path) -> Run:
    """A run that was kept."""
    return _RUN.validate_json(path.read_bytes())


def merged(runs: Sequence[Run]) -> Run:
    """The newest figures of each module, in the order of the report; machine and effort are those of the last run.

    For a run in parts on one machine. Each module's limit is of the same part as its figures.
    """
    newest = {each.module: each for run in runs for each in run.modules}
    order = {module: number for number, module in enumerate(MODULES)}
    modules = sorted(newest.values(), key=lambda each: order.get(each.module, len(order)))
    return Run(runs[-1].machine, runs[-1].effort, modules)
