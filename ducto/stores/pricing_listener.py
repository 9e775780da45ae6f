"""Hearing of published pricing through LISTEN, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ducto.stores.listening import KeptListener

__all__ = ["PricingListener"]

logger: logging.Logger = logging.getLogger("ducto.stores.postgres")

CHANNEL = "ducto_pricing"
_CHECK_SECONDS = 30.0
#: How long the end of the listener waits for a connection that is just being made.
_CONNECT_SECONDS = 1.0


class PricingListener(KeptListener):
    """Keeps one connection listening while there are callbacks. `connect` opens one."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("published pricing", logger=logger, first_pause_seconds=1.0, longest_pause_seconds=30.0)
        self._connect = connect

    async def _listen(self) -> None:
        connection = await self._connected()
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *said: self._tell(str(said[-1])))
            self._began()
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), _CHECK_SECONDS)
                except TimeoutError:
                    # A connection can die without a word; asking finds out.
                    await connection.execute("SELECT 1", timeout=_CHECK_SECONDS)
        finally:
            connection.terminate()

    async def _connected(self) -> Any:
        """A connection. Where we are stopped meanwhile, it is waited for: asyncpg complains of its own halved ones."""
        connecting = asyncio.ensure_future(self._connect())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait((connecting,), timeout=_CONNECT_SECONDS)
            if not connecting.done():
                connecting.cancel()
            elif connecting.exception() is None:
                connecting.result().terminate()
            raise
