"""Callers of a gateway over raw sockets, so that they take little of the machine from what is measured."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence

from benchmarks.served_gateway import KEY, PATH

__all__ = ["FIELDS", "LeanStream", "latencies", "open_streams", "request_bytes", "requests_per_second"]

_MARK = b"data: "
#: What each request asks for.
FIELDS = {"model": "m", "messages": [{"role": "user", "content": "Tell me something."}], "max_tokens": 300}


def request_bytes(*, stream: bool) -> bytes:
    """One request, whole."""
    body = json.dumps({**FIELDS, "stream": True} if stream else FIELDS).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\nuser-agent: bench\r\n"
        f"accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Caller(asyncio.Protocol):
    """One connection, for one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = b""
        self._waiting: asyncio.Future[float] | None = None
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def call(self, request: bytes) -> asyncio.Future[float]:
        """Seconds until the answer is whole."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._begun = time.perf_counter()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head, found, body = received.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(AssertionError(received.decode(errors="replace")))
            return
        named = head.lower().partition(b"\r\ncontent-length: ")[2]
        whole = len(body) >= int(named.split(b"\r\n", 1)[0]) if named else body.endswith(b"0\r\n\r\n")
        if whole and self._waiting is not None:
            self._received = b""
            self._waiting.set_result(time.perf_counter() - self._begun)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("The gateway closed the connection."))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


async def _connect(port: int) -> _Caller:
    _, caller = await asyncio.get_running_loop().create_connection(_Caller, "127.0.0.1", port)
    return caller


async def requests_per_second(port: int, *, callers: int, seconds: float) -> float:
    """What `callers` get who wait for each answer before they ask again."""
    request = request_bytes(stream=False)
    connections = [await _connect(port) for _ in range(callers)]
    begun = time.perf_counter()
    done = 0

    async def work(caller: _Caller) -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await caller.call(request)
            done += 1

    await asyncio.gather(*map(work, connections))
    elapsed = time.perf_counter() - begun
    for caller in connections:
        caller.transport.close()
    return done / elapsed


async def latencies(
    ports: Sequence[int], *, per_second: float, seconds: float, connections: int = 8
) -> list[list[float]]:
    """Seconds of each request, by port: requests begin at random moments, `per_second` in all, whoever still waits.

    They go to the ports in a random order, so that what slows the machine down slows all of them.
    """
    request = request_bytes(stream=False)
    free = [[await _connect(port) for _ in range(connections)] for port in ports]
    found: list[list[float]] = [[] for _ in ports]
    chance = random.Random(1)
    running: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        caller = free[number].pop() if free[number] else await _connect(ports[number])
        found[number].append(await caller.call(request))
        free[number].append(caller)

    begun = due = time.perf_counter()
    while due - begun < seconds:
        due += chance.expovariate(per_second)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.add(task := asyncio.create_task(one(chance.randrange(len(ports)))))
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for caller in (each for group in free for each in group):
        caller.transport.close()
    return found


class LeanStream(asyncio.Protocol):
    """One open stream: counts its events."""

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._begun = 0.0
        self._tail = b""
        self.events = 0
        #: Seconds from the request to the first event.
        self.first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._begun = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # An event's mark may come in two pieces.
        seen = self._tail + data
        self._tail = seen[1 - len(_MARK) :]
        self.events += seen.count(_MARK)
        if self.events and not self.first.done():
            self.first.set_result(time.perf_counter() - self._begun)
        if data.endswith(b"0\r\n\r\n"):
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        if not self.first.done():
            self.first.set_exception(exc or ConnectionError("The gateway closed the connection."))


async def open_streams(port: int, count: int, *, at_once: int = 20) -> list[LeanStream]:
    """Open streams, a few at once, and wait until each has its first event."""
    request, loop = request_bytes(stream=True), asyncio.get_running_loop()
    opened: list[LeanStream] = []
    while len(opened) < count:
        some = [
            (await loop.create_connection(lambda: LeanStream(request), "127.0.0.1", port))[1]
            for _ in range(min(at_once, count - len(opened)))
        ]
        await asyncio.gather(*(stream.first for stream in some))
        opened += some
    return opened
