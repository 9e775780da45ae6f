"""A provider in a process of its own, as lean as one can be in Python, so that what is measured is what is before it.

It answers a request with the same 1 KB of JSON, or, if it asks for a stream, with the first event of a chat stream, and
with one more at each tick until it is told to end. How long the first one takes, and how many ticks there are a second,
it is told while it runs.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

__all__ = ["ANSWER", "CHUNK", "LAST", "USAGE", "Provider", "start_provider"]

USAGE = {"prompt_tokens": 20, "completion_tokens": 200, "total_tokens": 220}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 750}, "finish_reason": "stop"}],
    "usage": USAGE,
}
_ENVELOPE = {
    "id": "chatcmpl-" + "1" * 29,
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m-2026-01-01",
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}
_DELTA = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
#: An event of 250 bytes.
CHUNK = b"data: " + json.dumps({**_ENVELOPE, "choices": [_DELTA]}, separators=(",", ":")).encode() + b"\n\n"
#: What a stream ends with.
LAST = b"data: " + json.dumps({**_ENVELOPE, "choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"

_BODY = json.dumps(ANSWER).encode()
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
_FRAMED = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + _FRAMED
_END = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LAST), LAST)

#: The streams take their turns in so many groups, so that they do not all speak at the same moment.
_GROUPS = 20


@dataclass(slots=True)
class _Told:
    """What the provider was told, and its open streams."""

    ticks_per_second: float = 0.0
    first_event_seconds: float = 0.0
    streams: list[_Serving] = field(default_factory=list)


class _Serving(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, told: _Told) -> None:
        self._told = told
        self._received = b""
        #: The gateway does not keep up: it gets no more until it does, as a provider would do it.
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=4 * len(_FRAMED))

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head, found, body = received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]):
            return
        self._received = b""
        if b'"stream"' not in body:
            self.transport.write(_PLAIN)
            return
        asyncio.get_running_loop().call_later(self._told.first_event_seconds, self._begin)

    def _begin(self) -> None:
        self.transport.write(_STREAM)
        self._told.streams.append(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._told.streams:
            self._told.streams.remove(self)


async def _provide(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    told = _Told()
    server = await loop.create_server(lambda: _Serving(told), "127.0.0.1", 0, backlog=2048)
    pipe.send(server.sockets[0].getsockname()[1])
    group, due = 0, loop.time()

    def listen() -> None:
        said = pipe.recv()
        if said is not None:
            told.ticks_per_second, told.first_event_seconds = said
            return
        for stream in told.streams:
            stream.transport.write(_END)
        told.streams.clear()

    loop.add_reader(pipe.fileno(), listen)
    while True:
        if told.ticks_per_second:
            for stream in told.streams[group::_GROUPS]:
                if not stream.paused:
                    stream.transport.write(_FRAMED)
            group = (group + 1) % _GROUPS
        # What was missed in a slow moment is not caught up with in a burst.
        due = max(due + 1 / (_GROUPS * (told.ticks_per_second or 1.0)), loop.time() - 0.1)
        await asyncio.sleep(max(0.0, due - loop.time()))


def _run(pipe: Connection) -> None:
    try:
        asyncio.run(_provide(pipe))
    except (KeyboardInterrupt, EOFError):
        return


@dataclass(frozen=True, slots=True)
class Provider:
    """The running provider."""

    url: str
    _pipe: Connection

    def tick(self, per_second: float, *, first_event_seconds: float = 0.0) -> None:
        """From now on each open stream gets so many events a second, and a new one its first after so long."""
        self._pipe.send((per_second, first_event_seconds))

    def end_streams(self) -> None:
        """Bring all open streams to their end."""
        self._pipe.send(None)


@contextmanager
def start_provider() -> Iterator[Provider]:
    """A provider that runs until the block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Provider(f"http://127.0.0.1:{ours.recv()}", ours)
    finally:
        process.terminate()
        process.join()
