"""TCP proxies that swallow replies, reset and stall, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["BackgroundLoop", "Link"]

T = TypeVar("T")

#: SO_LINGER with no time: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)


class BackgroundLoop:
    """An event loop in a thread, so that the main thread may wait for servers that it starts.

    (The main thread has to start them: the kernel ends a child with the *thread* that started it.)
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faults network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T], *, timeout_seconds: float = 60.0) -> T:
        """The result of `work`, run on the loop. For the main thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        pending = asyncio.all_tasks(self.loop)
        for task in pending:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self.loop.run_until_complete(asyncio.sleep(0.05))  # Transports that were aborted say goodbye.
        self.loop.close()


class Link:
    """A proxy in front of the server on `target_port`. Its faults are to be called on its loop."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.happened: dict[str, int] = {"drop": 0, "reset": 0, "stall": 0}
        self.pairs: set[_Pair] = set()
        self._to_drop = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(_Pair(self, loop), is_near=True), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()

    def drop_replies(self, count: int) -> None:
        """The next `count` replies do not reach their callers, whose connections end instead."""
        self._to_drop = count

    def reset(self) -> None:
        """Reset all connections, on both sides."""
        for pair in list(self.pairs):
            self.happened["reset"] += 1
            pair.abort()

    def stall(self, seconds: float) -> None:
        """What comes within the next `seconds` is passed on after them."""
        self.happened["stall"] += 1
        for pair in self.pairs:
            pair.stall(seconds)

    def heal(self) -> None:
        """No more faults, but those that have begun."""
        self._to_drop = 0

    def takes_reply(self) -> bool:
        """Is a reply that has come to be dropped? Counts it."""
        if self._to_drop == 0:
            return False
        self._to_drop -= 1
        self.happened["drop"] += 1
        return True


class _Pair:
    """A caller's connection and ours to the server. What comes is passed on in the order in which it came."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._near: asyncio.Transport | None = None
        self._far: asyncio.Transport | None = None
        self._waiting: list[tuple[bool, bytes]] = []
        self._stalled_until = 0.0
        self._ended = False

    def opened(self, transport: asyncio.Transport, *, is_near: bool) -> None:
        if not is_near:
            self._far = transport
            self._pass_waiting()
            if self._ended:  # The caller has left meanwhile.
                transport.close()
            return
        self._near = transport
        self._link.pairs.add(self)
        self._connecting = self._loop.create_task(self._connect())

    def came(self, data: bytes, *, from_near: bool) -> None:
        if not from_near and self._link.takes_reply():
            self.abort()
        elif self._far is None or self._waiting or self._loop.time() < self._stalled_until:
            self._waiting.append((from_near, data))
        else:
            self._pass_on(data, from_near=from_near)

    def stall(self, seconds: float) -> None:
        self._stalled_until = self._loop.time() + seconds
        self._loop.call_later(seconds + 0.001, self._pass_waiting)

    def abort(self) -> None:
        """Reset both sides."""
        for transport in (self._near, self._far):
            if transport is not None:
                with suppress(OSError):  # It has been closed already.
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                transport.abort()
        self.ended()

    def ended(self) -> None:
        """One side has ended: so does the other, after what is on the way to it."""
        if self._ended:
            return
        self._ended = True
        self._link.pairs.discard(self)
        self._stalled_until = 0.0
        self._pass_waiting()
        for transport in (self._near, self._far):
            if transport is not None:
                transport.close()

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: _Side(self, is_near=False), "127.0.0.1", self._link.target_port)
        except OSError:
            self.abort()

    def _pass_waiting(self) -> None:
        if self._far is None or self._loop.time() < self._stalled_until:
            return
        waiting, self._waiting = self._waiting, []
        for from_near, data in waiting:
            self._pass_on(data, from_near=from_near)

    def _pass_on(self, data: bytes, *, from_near: bool) -> None:
        transport = self._far if from_near else self._near
        if transport is not None and not transport.is_closing():
            transport.write(data)


class _Side(asyncio.Protocol):
    def __init__(self, pair: _Pair, *, is_near: bool) -> None:
        self._pair = pair
        self._is_near = is_near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._pair.opened(transport, is_near=self._is_near)

    def data_received(self, data: bytes) -> None:
        self._pair.came(data, from_near=self._is_near)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.ended()
