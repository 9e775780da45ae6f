"""Tasks that no caller's cancellation reaches, kept until they are done."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Supervisor", "outcome"]

logger: logging.Logger = logging.getLogger("ducto.supervisor")

T = TypeVar("T")


class Supervisor:
    """Owns the tasks of one event loop: refers to them strongly, retrieves their exceptions, drains them at
    the end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Start `work` now. Whoever wants its result awaits `outcome(task)`."""
        task = _start(work(), self._loop)
        if task.done():
            _retrieve(task)
        else:
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return task

    async def drain(self, *, seconds: float) -> int:
        """Wait up to `seconds` for all tasks, also those begun meanwhile, then cancel; how many were
        cancelled.
        """
        deadline = self._loop.time() + seconds
        while self._tasks and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        stuck = set(self._tasks)
        for task in stuck:
            task.cancel()
        if stuck:
            logger.error("%d settles or releases did not end within %s s and were cancelled.", len(stuck), seconds)
            await asyncio.wait(stuck, timeout=1.0)
        return len(stuck)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        _retrieve(task)


async def outcome(task: asyncio.Task[T]) -> T:
    """The result of a supervised task; the waiter may be cancelled, the task goes on.

    Not `asyncio.shield`, which newer Pythons let report the exception of a task that nobody waits for any
    more.
    """
    if not task.done():
        waiter: asyncio.Future[None] = task.get_loop().create_future()

        def wake(_: asyncio.Task[T]) -> None:
            if not waiter.done():
                waiter.set_result(None)

        task.add_done_callback(wake)
        try:
            await waiter
        finally:
            task.remove_done_callback(wake)
    return task.result()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the exception as seen: who is responsible for it has logged it where it arose."""
    if not task.cancelled():
        task.exception()


def _start(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
    if sys.version_info >= (3, 12):
        # A store that answers without waiting then costs no turn of the event loop.
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)
