"""The way from code that is not async to the manager's event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from ducto.errors import ConfigError

__all__ = ["LoopOwner", "Portal"]

T = TypeVar("T")


class LoopOwner(Protocol):
    """What the portal needs of the manager."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that the manager works on, `None` before its first use."""


class Portal:
    """Runs coroutines on the manager's loop from other threads.

    A manager that has no running loop yet gets one of its own, in a daemon thread, at the first call.
    """

    def __init__(self, owner: LoopOwner) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._private: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], *, instead: str) -> T:
        """The result of `work`, run on the manager's loop while this thread waits.

        Raises `ConfigError` on a thread that runs an event loop, which the wait would stop; `instead` names
        the async form to use there.
        """
        if _running_loop() is not None:
            raise ConfigError(f"This thread runs an event loop, and waiting here would stop it; {instead}.")
        return asyncio.run_coroutine_threadsafe(work(), self._target()).result()

    def finish(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work`, which must log its own failures: wait for it where that is possible, else leave it
        running.

        For the end of a call, which comes on any thread: a forgotten generator is closed by the garbage
        collector.
        """
        target = self._target()
        future = asyncio.run_coroutine_threadsafe(work(), target)
        if _running_loop() is None:
            future.result()

    def stop(self) -> None:
        """End the private loop, if there is one. Called when the manager is closed, also from that loop."""
        with self._lock:
            loop, self._private = self._private, None
            thread = self._thread
            if thread is threading.current_thread():
                thread = None  # it cannot wait for itself; whoever asked it to close the manager waits
            else:
                self._thread = None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if thread is not None:
            thread.join(timeout=5.0)

    def _target(self) -> asyncio.AbstractEventLoop:
        loop = self._owner.loop
        if loop is not None and loop.is_running():
            return loop
        with self._lock:
            if self._private is None:
                self._private = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._private,), name="ducto portal", daemon=True)
                self._thread.start()
            return self._private


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
