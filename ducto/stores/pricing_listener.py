"""Hearing of published pricing through LISTEN, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PricingListener"]

logger: logging.Logger = logging.getLogger("ducto.stores.postgres")

CHANNEL = "ducto_pricing"
_CHECK_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0

Callback = Callable[[str | None], None]


class PricingListener:
    """Keeps one connection listening while there are callbacks; connects again when it is lost.

    Callbacks run on the loop and must be quick; what they raise is logged. Whenever a connection begins to listen they
    are told `None`: what was published before was not heard.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._callbacks: list[Callback] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, callback: Callback) -> Callable[[], None]:
        self._callbacks.append(callback)
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.get_loop() is not loop:
            # A task of an earlier loop ended with it.
            self._task = loop.create_task(self._run(), name="ducto listening for pricing")

        def remove() -> None:
            if callback not in self._callbacks:
                return
            self._callbacks.remove(callback)
            if not self._callbacks and self._task is not None and not self._task.get_loop().is_closed():
                self._task.cancel()
                self._task = None

        return remove

    async def aclose(self) -> None:
        self._callbacks.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                connection = await self._connect()
                pause = _FIRST_PAUSE_SECONDS
                try:
                    await self._listen(connection)
                finally:
                    connection.terminate()
            except Exception as error:  # noqa: BLE001 - whatever ended it, the listener goes on
                # The type only: messages of the driver may contain parts of the URL.
                logger.warning("Listening for published pricing was interrupted (%s).", type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _listen(self, connection: Any) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, lambda *said: self._tell(str(said[-1])))
        self._tell(None)
        while not lost.is_set():
            try:
                await asyncio.wait_for(lost.wait(), _CHECK_SECONDS)
            except TimeoutError:
                # A connection can die without a word; asking finds out.
                await connection.execute("SELECT 1", timeout=_CHECK_SECONDS)

    def _tell(self, version: str | None) -> None:
        for callback in list(self._callbacks):
            try:
                callback(version)
            except Exception:
                logger.exception("A callback for published pricing failed.")
