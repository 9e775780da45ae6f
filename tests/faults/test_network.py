"""The faults of a link, in front of a server that says everything twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import pytest

from tests.faults.network import Link


@asynccontextmanager
async def link_to_echo() -> AsyncIterator[tuple[Link, list[bytes]]]:
    """A link, and what has reached the server behind it."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data * 2)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1])
    await link.open()
    try:
        yield link, heard
    finally:
        await link.close()
        server.close()
        await asyncio.sleep(0.05)


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(2 * len(text)), 5)


async def test_a_dropped_reply_is_of_a_request_that_arrived() -> None:
    async with link_to_echo() as (link, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await said(reader, writer, b"one") == b"oneone"
        link.drop_replies(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await said(reader, writer, b"two")
        assert heard == [b"one", b"two"]
        assert link.happened["drop"] == 1
        writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await said(reader, writer, b"three") == b"threethree"
        writer.transport.abort()


async def test_a_reset_ends_all_connections_there_are() -> None:
    async with link_to_echo() as (link, _):
        connections = [await asyncio.open_connection("127.0.0.1", link.port) for _ in range(3)]
        for reader, writer in connections:
            await said(reader, writer, b"x")
        link.reset()
        assert link.happened["reset"] == 3
        for reader, writer in connections:
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readexactly(1), 5)
            writer.transport.abort()


async def test_what_is_stalled_arrives_later_and_in_order() -> None:
    async with link_to_echo() as (link, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        await said(reader, writer, b"a")
        began = time.monotonic()
        link.stall(0.3)
        writer.write(b"b")
        await asyncio.sleep(0.05)
        writer.write(b"c")
        await asyncio.sleep(0.05)
        assert heard == [b"a"]
        await asyncio.wait_for(reader.readexactly(4), 5)
        assert time.monotonic() - began >= 0.29
        assert b"".join(heard) == b"abc"
        writer.transport.abort()


async def test_a_server_that_is_away_ends_the_connection() -> None:
    link = Link(1)
    await link.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.transport.abort()
    await link.close()
