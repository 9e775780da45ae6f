"""Hearing what others publish, on a connection of its own that is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["Heard", "KeptListener"]

#: Gets what was published; `None` when listening began (again), so that anything may have been missed before.
Heard = Callable[[str | None], None]


class KeptListener(ABC):
    """Listens while there are callbacks, with growing pauses between attempts, for ever.

    Callbacks run on the loop and must be quick; what they raise is logged. A subclass says in `_listen` how a
    connection is made and what is heard on it.
    """

    def __init__(
        self, subject: str, *, logger: logging.Logger, first_pause_seconds: float, longest_pause_seconds: float
    ) -> None:
        self._subject = subject
        self._logger = logger
        self._first_pause_seconds = first_pause_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._callbacks: list[Heard] = []
        self._listening = False
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _listen(self) -> None:
        """Connect, say `_began()`, and `_tell` what is heard. Ends, or raises, when the connection is lost."""

    def add(self, heard: Heard) -> Callable[[], None]:
        """Call `heard` from now on; returns what ends it."""
        loop = asyncio.get_running_loop()
        own = [True]  # The same function may be added twice, so it is not told apart by itself.

        def callback(message: str | None) -> None:
            if own:
                heard(message)

        self._callbacks.append(callback)
        if self._task is None or self._task.get_loop() is not loop:  # A task of an earlier loop ended with it.
            self._listening = False
            self._task = loop.create_task(self._run(), context=contextvars.Context())
        elif self._listening:
            loop.call_soon(self._call, callback, None)

        def remove() -> None:
            own.clear()
            if callback not in self._callbacks:
                return
            self._callbacks.remove(callback)
            if not self._callbacks and self._task is not None and not self._task.get_loop().is_closed():
                self._task.cancel()
                self._task = None

        return remove

    async def aclose(self) -> None:
        """Forget all callbacks and end the connection."""
        self._callbacks.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _began(self) -> None:
        self._listening = True
        self._tell(None)

    def _tell(self, message: str | None) -> None:
        for callback in list(self._callbacks):
            self._call(callback, message)

    def _call(self, callback: Heard, message: str | None) -> None:
        try:
            callback(message)
        except Exception:
            self._logger.exception("A callback for %s failed.", self._subject)

    async def _run(self) -> None:
        pause = self._first_pause_seconds
        told = False
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever ended it, the listener goes on
                # Once for each interruption, and the type only: messages of drivers may contain parts of the URL.
                if self._listening or not told:
                    self._logger.warning("Listening for %s was interrupted (%s).", self._subject, type(error).__name__)
                    told = True
            if self._listening:
                pause, self._listening = self._first_pause_seconds, False
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._longest_pause_seconds)
