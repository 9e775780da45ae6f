"""Hearing one channel of Redis, on a connection of its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ducto.stores.redis.wire import packed

__all__ = ["Heard", "RedisListener"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

#: Gets what was published; `None` when the subscription was (re)made, so that anything may have been missed.
Heard = Callable[[str | None], None]

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
#: A connection can die without a word: after so long a silence it is asked, and has as long to answer.
_SILENCE_SECONDS = 5.0


class RedisListener:
    """Keeps one subscription while there are callbacks; makes it again, for ever, when it is lost.

    `new_connection` makes a connection of redis-py that is not yet connected, after finding out where the server is.
    Callbacks run on the loop and must be quick; what they raise is logged.
    """

    def __init__(self, channel: str, new_connection: Callable[[], Awaitable[Any]], *, connect_seconds: float) -> None:
        self._channel = channel
        self._new_connection = new_connection
        self._connect_seconds = connect_seconds
        self._callbacks: list[Heard] = []
        self._subscribed = False
        self._task: asyncio.Task[None] | None = None

    def add(self, heard: Heard) -> Callable[[], None]:
        """Call `heard` from now on; returns what ends it."""
        loop = asyncio.get_running_loop()
        own = [True]  # The same function may be added twice, so it is not told apart by itself.

        def callback(message: str | None) -> None:
            if own:
                heard(message)

        self._callbacks.append(callback)
        if self._task is None:
            self._task = loop.create_task(self._run(), context=contextvars.Context())
        elif self._subscribed:
            loop.call_soon(self._tell, callback, None)

        def remove() -> None:
            own.clear()
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            if not self._callbacks and self._task is not None:
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
            connection = None
            try:
                async with asyncio.timeout(self._connect_seconds):
                    connection = await self._new_connection()
                    await connection.connect()
                    await connection.send_packed_command(packed(["SUBSCRIBE", self._channel]), check_health=False)
                    await connection.read_response(disable_decoding=True)
                pause = _FIRST_PAUSE_SECONDS
                self._subscribed = True
                self._tell_all(None)
                await self._hear(connection)
            except Exception as error:  # noqa: BLE001 - whatever ended it, the listener goes on
                if self._subscribed:
                    logger.warning("Listening to Redis was interrupted (%s).", type(error).__name__)
            finally:
                self._subscribed = False
                if connection is not None:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _hear(self, connection: Any) -> None:
        """Until the connection is lost."""
        asked = False
        while True:
            said = await connection.read_response(disable_decoding=True, timeout=_SILENCE_SECONDS)
            if said is None:
                if asked:
                    raise TimeoutError
                asked = True
                await connection.send_packed_command(packed(["PING"]), check_health=False)
                continue
            asked = False
            if said[0] == b"message":
                self._tell_all(said[2].decode(errors="replace"))

    def _tell_all(self, message: str | None) -> None:
        for callback in list(self._callbacks):
            self._tell(callback, message)

    def _tell(self, callback: Heard, message: str | None) -> None:
        try:
            callback(message)
        except Exception:
            logger.exception("A callback for the channel %s of Redis failed.", self._channel)
