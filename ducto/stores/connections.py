"""Connections to Postgres between their calls: our own, or those of a pool that was handed in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

__all__ = ["Connections", "OwnConnections", "PooledConnections"]

#: A connection that nobody used for so long may have been forgotten on the way, by a firewall for example.
_IDLE_SECONDS = 300.0


class Connections(Protocol):
    """Where calls take a connection from. How many may be out at once is the caller's affair."""

    async def take(self) -> Any:
        """A connection that nobody else uses. Raises what the driver raises when it cannot connect."""

    async def give_back(self, connection: Any, *, usable: bool) -> None:
        """Done with it. `usable` is false where it was left in the middle of something."""

    async def aclose(self, *, timeout_seconds: float) -> None:
        """Close what is ours."""


class OwnConnections:
    """Connections that are opened when needed and kept for the next call, the last used one first.

    The driver's own pool makes two tasks for each use and asks the session's state back, which is dearer than the round
    trip itself; here sessions are never changed, so that there is nothing to reset.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
        self._connect = connect
        self._idle: deque[tuple[float, asyncpg.Connection[Any]]] = deque()
        self._closed = False

    async def take(self) -> Any:
        import asyncpg

        if self._closed:
            raise asyncpg.InterfaceError("closed")
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.is_closed() and time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.terminate()
        return await self._connect()

    async def give_back(self, connection: Any, *, usable: bool) -> None:
        if not usable or self._closed:
            connection.terminate()
            return
        now = time.monotonic()
        self._idle.append((now, connection))
        if now - self._idle[0][0] >= _IDLE_SECONDS:
            # After a busy time there are more than are needed.
            self._idle.popleft()[1].terminate()

    async def aclose(self, *, timeout_seconds: float) -> None:
        self._closed = True
        idle, self._idle = self._idle, deque()
        await asyncio.gather(
            *(connection.close(timeout=timeout_seconds) for _, connection in idle), return_exceptions=True
        )


class PooledConnections:
    """The connections of somebody else's pool, who closes it."""

    def __init__(self, pool: asyncpg.Pool[Any], *, acquire_timeout_seconds: float) -> None:
        self._pool = pool
        self._acquire_timeout_seconds = acquire_timeout_seconds

    async def take(self) -> Any:
        return await self._pool.acquire(timeout=self._acquire_timeout_seconds)

    async def give_back(self, connection: Any, *, usable: bool) -> None:
        import asyncpg

        try:
            await self._pool.release(connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            # The connection broke; the pool has dropped it, and what the call itself met is already being raised.
            connection.terminate()

    async def aclose(self, *, timeout_seconds: float) -> None:
        """It is not ours to close."""
