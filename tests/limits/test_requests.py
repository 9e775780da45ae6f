"""Bodies without end, headers without end, and senders without haste, at a gateway behind a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from tests.limits.conftest import HEAD, Gateway, running_gateway, status_of
from tests.middleware.support import BODIES, CHAT, cost_of

GIGABYTE = 2**30
MEGABYTE = 2**20


async def send_a_body(gateway: Gateway, size: int, *, chunked: bool) -> tuple[bytes, int]:
    """The answer to a body of `size` bytes, and how many of them were taken."""
    reader, writer = await gateway.connect()
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    writer.write(HEAD + length + b"\r\n\r\n")
    piece = b"x" * MEGABYTE
    taken = 0
    try:
        with contextlib.suppress(OSError):
            while taken < size and not reader.at_eof():
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                taken += len(piece)
        with contextlib.suppress(OSError):
            return await asyncio.wait_for(reader.read(), 10), taken
        return b"", taken
    finally:
        writer.close()


@pytest.mark.parametrize("chunked", [True, False], ids=["in chunks", "with its length"])
async def test_a_body_of_a_gigabyte_takes_no_memory(gateway: Gateway, chunked: bool) -> None:
    assert await gateway.call() == 200
    before = gateway.peak_memory_mb()
    answers = await asyncio.gather(*(send_a_body(gateway, GIGABYTE, chunked=chunked) for _ in range(4)))
    for answer, taken in answers:
        # The server closes a connection on which more came than it wants, and that may overtake its answer.
        assert status_of(answer) in (413, 0), answer
        assert taken < 64 * MEGABYTE
    assert gateway.peak_memory_mb() - before < 64
    assert (await gateway.standing())["held"] == 0
    assert await gateway.call() == 200


async def test_what_is_too_large_is_told_so(gateway: Gateway) -> None:
    declared = await gateway.exchange(HEAD + b"Content-Length: 1000000000\r\nConnection: close\r\n\r\n")
    assert status_of(declared) == 413
    assert json.loads(declared.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -5",
        b"Content-Length: 5x",
        b"Transfer-Encoding: chunked\r\nX: y\n\rZ: z",
        b"Bad Header: x\r\nContent-Length: 5",
        b"X-Nul: a\x00b\r\nContent-Length: 5",
    ],
)
async def test_a_request_whose_end_two_servers_could_see_differently_is_refused(
    gateway: Gateway, framing: bytes
) -> None:
    before = (await gateway.standing())["balance"]
    answer = await gateway.exchange(
        HEAD + framing + b"\r\nConnection: close\r\n\r\n" + json.dumps(BODIES[CHAT]).encode()
    )
    assert status_of(answer) in (400, 0)
    assert (await gateway.standing())["balance"] == before


async def test_a_body_with_two_ends_is_refused_or_has_the_one_that_was_charged(gateway: Gateway) -> None:
    """RFC 9112 gives the chunks precedence over the length: the parser that goes by it passes no length on."""
    before = (await gateway.standing())["balance"]
    raw = json.dumps(BODIES[CHAT]).encode()
    framing = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = await gateway.exchange(HEAD + framing + b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw))
    spent = before - (await gateway.standing())["balance"]
    assert (status_of(answer), spent) in ((200, cost_of(BODIES[CHAT])), (400, 0), (0, 0))


async def test_many_and_large_headers_change_nothing(gateway: Gateway) -> None:
    raw = json.dumps(BODIES[CHAT]).encode()
    many = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 100) for number in range(300))
    answer = await gateway.exchange(HEAD + many + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
    assert status_of(answer) == 200


async def test_headers_without_end_are_cut_off_by_h11() -> None:
    """The parser `httptools` has no such limit, which is why the page on faults asks for h11 or for a proxy."""
    with running_gateway("h11") as gateway:
        assert await gateway.call() == 200
        before = gateway.peak_memory_mb()
        endless = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(50_000))
        assert status_of(await gateway.exchange(HEAD + endless)) in (400, 431, 0)
        assert gateway.peak_memory_mb() - before < 16
        assert await gateway.call() == 200


async def test_five_hundred_slow_senders_hold_nothing_and_nobody_up(gateway: Gateway) -> None:
    alone = await seconds_of_calls(gateway, 20)
    sockets = [await gateway.connect() for _ in range(500)]
    going = True
    try:
        for _, writer in sockets:
            writer.write(HEAD + b"Content-Length: 100000\r\n\r\n{")

        async def drip() -> None:
            while going:
                for _, writer in sockets:
                    writer.write(b" ")
                await asyncio.sleep(0.2)

        dripping = asyncio.ensure_future(drip())
        beside = await seconds_of_calls(gateway, 40)
        assert (await gateway.standing())["held"] == 0
        going = False
        await dripping
    finally:
        for _, writer in sockets:
            writer.close()
    # The slowest of few calls on a machine that does other things as well.
    assert beside[-1] < max(1.5, 10 * alone[-1])
    assert beside[len(beside) // 2] < max(0.3, 10 * alone[len(alone) // 2])


async def seconds_of_calls(gateway: Gateway, count: int) -> list[float]:
    """How long each took, shortest first."""
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        assert await gateway.call() == 200
        taken.append(time.monotonic() - begun)
    return sorted(taken)
