"""Hearing one channel of Redis, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ducto.stores.listening import KeptListener
from ducto.stores.redis.wire import packed

__all__ = ["RedisListener"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

#: A connection can die without a word: after so long a silence it is asked, and has as long to answer.
_SILENCE_SECONDS = 5.0


class RedisListener(KeptListener):
    """Keeps one subscription while there are callbacks.

    `new_connection` makes a connection of redis-py that is not yet connected, after finding out where the server is.
    """

    def __init__(self, channel: str, new_connection: Callable[[], Awaitable[Any]], *, connect_seconds: float) -> None:
        super().__init__(
            f"the channel {channel} of Redis", logger=logger, first_pause_seconds=0.05, longest_pause_seconds=1.0
        )
        self._channel = channel
        self._new_connection = new_connection
        self._connect_seconds = connect_seconds

    async def _listen(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = await self._new_connection()
                await connection.connect()
                await connection.send_packed_command(packed(["SUBSCRIBE", self._channel]), check_health=False)
                await connection.read_response(disable_decoding=True)
            self._began()
            await self._hear(connection)
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)

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
                self._tell(said[2].decode(errors="replace"))
