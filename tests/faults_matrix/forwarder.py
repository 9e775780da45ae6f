"""An address whose server can change, as that behind a name or a load balancer does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Forwarder"]


class Forwarder:
    """Passes connections on to `target_port`, or lets nobody in while that is `None`."""

    def __init__(self, target_port: int) -> None:
        self._target_port: int | None = target_port
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, target_port: int) -> AsyncIterator[Forwarder]:
        forwarder = cls(target_port)
        server = await asyncio.start_server(forwarder._serve, "127.0.0.1", 0)
        forwarder.port = server.sockets[0].getsockname()[1]
        try:
            yield forwarder
        finally:
            server.close()
            await forwarder.point_to(None)

    async def point_to(self, port: int | None) -> None:
        """Break all connections; new ones go to that port."""
        self._target_port = port
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._target_port is not None:
                with suppress(OSError):
                    there = await asyncio.open_connection("127.0.0.1", self._target_port)
                    try:
                        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
                    finally:
                        there[1].close()
        finally:
            writer.close()
            self._connections.discard(task)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
