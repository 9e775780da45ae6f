"""A link for one test, proxies in front of a real Redis, and waiting until something holds."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio

from ducto.stores.redis.link import RedisLink, RedisUnavailable

#: A script of its own, so that these tests need none of the store's. It keeps the server busy, as a slow command does.
BUSY = """
local began = redis.call('TIME')
repeat
    local now = redis.call('TIME')
    local passed = (now[1] - began[1]) * 1000 + (now[2] - began[2]) / 1000
until passed > tonumber(ARGV[1])
return KEYS[1]
"""


@asynccontextmanager
async def link_to(
    redis: str | redis.asyncio.Redis | redis.asyncio.RedisCluster,
    *,
    budget_seconds: float = 2.0,
    open_seconds: float = 0.1,
    connect_seconds: float = 5.0,
    lanes: int = 2,
    scripts: Path | None = None,
) -> AsyncIterator[RedisLink]:
    """With much time for each command, so that a busy machine is not taken for a Redis that is gone."""
    more: dict[str, Any] = {} if scripts is None else {"scripts": scripts}
    link = RedisLink(
        redis,
        budget_seconds=budget_seconds,
        open_seconds=open_seconds,
        connect_seconds=connect_seconds,
        lanes=lanes,
        **more,
    )
    try:
        yield link
    finally:
        await link.aclose()


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait until `condition` holds; fails the test where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It never came to hold."
        await asyncio.sleep(0.01)


async def answered(link: RedisLink, *parts: str | bytes | int, seconds: float = 10.0) -> Any:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await link.command(*parts)
        except RedisUnavailable:
            assert time.monotonic() < deadline, "Redis never answered."
            await asyncio.sleep(0.02)


@dataclass
class Proxy:
    """Something that listens in front of a server, and how often somebody came."""

    port: int = 0
    accepted: int = 0


@asynccontextmanager
async def proxy_to(
    port: int | None, *, tls: ssl.SSLContext | None = None, delay_seconds: float = 0.0
) -> AsyncIterator[Proxy]:
    """In front of the server on `port` (`None`: there is nobody, and nobody answers), ending TLS where it is given.

    Passes on what a client sends only `delay_seconds` after it came in: a slow handshake, when it is the first.
    """
    seen = Proxy()
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.accepted += 1
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.closing(writer):
            if port is None:
                await asyncio.Event().wait()
            await asyncio.sleep(delay_seconds)
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(inner_writer):
                ways = [_pass_on(reader, inner_writer), _pass_on(inner_reader, writer)]
                running = [asyncio.ensure_future(way) for way in ways]
                tasks.update(running)
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in running:
                    each.cancel()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
