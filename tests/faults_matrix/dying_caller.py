"""Metered calls in processes that are killed: `python -m tests.faults_matrix.dying_caller URL POINTS`.

It loads everything once and forks for each point, which is the turn of the event loop at which the child kills itself.
Prints a line for each child: its number, and what it had been told when it died.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

from ducto.manager import CreditManager
from ducto.stores.postgres import PostgresStore

HELD, CHARGED = 100, 60
#: Children that run at the same time, and how many turns one lives longer than the one before.
AT_ONCE = 8
TURNS_APART = 3


class DyingLoop(asyncio.SelectorEventLoop):
    """Kills its process after so many turns, counted from when `dies_after` was set."""

    dies_after: int | None = None

    def _run_once(self) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        super()._run_once()  # type: ignore[misc]


async def call(url: str, number: int, point: int, told: int) -> None:
    """One call, with what was answered written to the pipe `told` as soon as it is known."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DyingLoop)
    async with PostgresStore(url) as store, CreditManager(store, maintain_every_seconds=None) as manager:
        await manager.ping()
        loop.dies_after = point
        async with manager.meter(f"user-{number}", estimate=HELD) as metered:
            os.write(told, b"reserved ")
            for _ in range(8):
                await asyncio.sleep(0)
            metered.record(CHARGED)
        os.write(told, b"charged ")
        for _ in range(1_000):
            await asyncio.sleep(0)


def fork(url: str, number: int) -> tuple[int, int]:
    """A child that makes a call and dies: its process, and where to read what it was told."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        with asyncio.Runner(loop_factory=DyingLoop) as runner:
            runner.run(call(url, number, number * TURNS_APART, told))
        os._exit(0)
    os.close(told)
    return child, reading


def outcomes(url: str, points: int) -> Iterator[str]:
    for first in range(0, points, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, points))
        for number, (child, reading) in zip(numbers, [fork(url, number) for number in numbers], strict=True):
            with os.fdopen(reading) as answers:
                said = answers.read()
            os.waitpid(child, 0)
            yield f"{number} {said}"


if __name__ == "__main__":
    for line in outcomes(sys.argv[1], int(sys.argv[2])):
        print(line, flush=True)
