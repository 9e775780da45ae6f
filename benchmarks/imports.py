"""How long `import ducto` takes, beside pydantic and starlette, which every user of it has anyway.

Each figure is the time of one import statement in a fresh process, without the start of the interpreter; the processes
alternate, so that a slow moment of the machine hits all of them. Bytecode is kept from the first run on, as it is for
installed packages. `python -X importtime -c 'import ducto'` shows where the time goes, and adds some to each module.

Run it with `python -m benchmarks.imports`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.figures import Effort, Section, about, compare, figure, run_alone

__all__ = ["AIM_RATIO", "main", "measure"]

ROUNDS = 21
#: What `import ducto` may take of its peer's time.
AIM_RATIO = 1.5

IMPORT, PEER = "import ducto", "import pydantic, starlette"
#: All of them load most of what they have when a name is asked for. So there is also the time of what a program needs
#: that meters calls on a memory store, and of what one needs that declares a model and serves.
USED = (
    "from ducto import CreditManager, MemoryStore",
    "from pydantic import BaseModel; from starlette.applications import Starlette",
)
_PROGRAM = "import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"


def _seconds(statement: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(statement=statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


def measure(effort: Effort) -> Section:
    """Milliseconds of each import, in turns."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {statement: [] for statement in (IMPORT, PEER, *USED)}
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        for statement in times:  # Compiles.
            _seconds(statement, environment)
        for _ in range(1 if effort.quick else ROUNDS):
            for statement, taken in times.items():
                taken.append(_seconds(statement, environment) * 1000)
    figures = {statement: figure(statement, taken, unit="ms") for statement, taken in times.items()}
    compared = compare(IMPORT, figures.pop(IMPORT), figures.pop(PEER), aim=AIM_RATIO, better="lower", paired=True)
    return Section("Import", about(__doc__), [compared], list(figures.values()))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
