"""A TCP proxy on loopback that can swallow a reply and hang up, as a network does at the worst moment, and that can be
pointed to another server, as the address behind a name or a load balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["CuttingProxy"]


class CuttingProxy:
    def __init__(self, target_port: int) -> None:
        self._target_port: int | None = target_port
        self._cut = False
        self._containing = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, target_port: int) -> AsyncIterator[CuttingProxy]:
        proxy = cls(target_port)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            await proxy.point_to(None)

    async def point_to(self, port: int | None) -> None:
        """Break all connections; new ones go to `port`, and while that is `None` nobody is let in."""
        self._target_port = port
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_next_reply(self, *, containing: bytes = b"") -> None:
        """The next bytes from the server that have `containing` are not passed on; the connection is closed instead."""
        self._cut, self._containing = True, containing

    @property
    def will_cut(self) -> bool:
        """Whether the reply that is to be cut has not come yet."""
        return self._cut

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._target_port is None:
                return
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            forth = asyncio.create_task(self._pass(reader, upstream_writer, replies=False))
            back = asyncio.create_task(self._pass(upstream_reader, writer, replies=True))
            try:
                await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in (forth, back):
                    each.cancel()
                upstream_writer.close()
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if replies and self._cut and self._containing in data:
                    self._cut = False
                    return
                writer.write(data)
                await writer.drain()
