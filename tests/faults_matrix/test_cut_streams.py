"""Streams that break off at each byte: what came is passed on, and the call ends once, by its usage or an estimate."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ducto.testing.simulator import Fault, ProviderSimulator
from tests.middleware.support import BODIES, Books, Caller, open_books

GENERATE = {"contents": [{"role": "user", "parts": [{"text": "How much is the fish?"}]}]}
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "How much is the fish?"}]}],
    "inferenceConfig": {"maxTokens": 50},
}


@dataclass(frozen=True)
class Wire:
    """A streamed route. `usage` stands in the part of the stream that tells the whole usage, whose price is `cost`."""

    path: str
    body: dict[str, Any]
    media_type: str
    usage: bytes
    cost: int
    query: bytes = b""


WIRES = {
    "openai": Wire(
        "/v1/chat/completions",
        {**BODIES["/v1/chat/completions"], "stream": True, "stream_options": {"include_usage": True}},
        "text/event-stream",
        b'"completion_tokens"',
        cost=16 + 2 * 3,
    ),
    "anthropic": Wire(
        "/v1/messages",
        {**BODIES["/v1/messages"], "stream": True},
        "text/event-stream",
        b'"message_delta"',
        cost=16 + 2 * 3,
    ),
    "gemini": Wire(
        "/v1beta/models/m:streamGenerateContent",
        {**GENERATE, "generationConfig": {"maxOutputTokens": 50}},
        "text/event-stream",
        b'"usageMetadata"',
        cost=19 + 2 * 3,
        query=b"alt=sse",
    ),
    "gemini, an array": Wire(
        "/v1beta/models/m:streamGenerateContent",
        {**GENERATE, "generationConfig": {"maxOutputTokens": 50}},
        "application/json",
        b'"usageMetadata"',
        cost=19 + 2 * 3,
    ),
    "bedrock": Wire(
        "/model/m/converse-stream",
        CONVERSE,
        "application/vnd.amazon.eventstream",
        b'"outputTokens"',
        cost=19 + 2 * 3,
    ),
}


class BrokeOffError(Exception):
    """What an app raises whose connection to the provider broke."""


def app_breaking_off(stream: bytes, wire: Wire, *, raises: bool) -> Callable[..., Any]:
    """An app that passes on what came of an answer, and then fails, or is over without having ended its answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", wire.media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if stream:
            await send({"type": "http.response.body", "body": stream, "more_body": True})
        if raises:
            raise BrokeOffError

    return app


async def whole_stream(wire: Wire, **fault: Any) -> bytes:
    simulator = ProviderSimulator(default=Fault(chunks=3, **fault))
    return (await Caller(simulator.app).post(wire.path, wire.body, query_string=wire.query)).body


@dataclass(frozen=True)
class End:
    """How a call ended: `charged` is `None` for one that was released."""

    charged: int | None
    estimated: bool


async def ending(books: Books, wire: Wire, stream: bytes, *, raises: bool) -> End:
    """Pass `stream` through the middleware, and look at what has become of the reservation."""
    before = await newest(books)
    caller = Caller(books.door(app_breaking_off(stream, wire, raises=raises), answers=None))
    try:
        answer = await caller.post(wire.path, wire.body, query_string=wire.query)
    except BrokeOffError:
        pass
    else:
        assert answer.body == stream or (not stream and answer.status == 502)
    assert (await books.store.get_available("alice")).held == 0
    after = await newest(books)
    if after.sequence == before.sequence:
        return End(None, estimated=False)
    assert (after.sequence, after.type) == (before.sequence + 1, "deduction")
    return End(after.charged, after.estimated)


async def newest(books: Books) -> Any:
    return (await books.store.list_transactions("alice", limit=1)).transactions[0]


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
async def test_a_stream_that_breaks_off_at_any_byte_ends_once(wire: Wire) -> None:
    stream = await whole_stream(wire)
    async with rich_books() as books:
        ends = [await ending(books, wire, stream[:cut], raises=False) for cut in range(len(stream) + 1)]
        # Where the app fails instead of ending its answer too early, the same is charged.
        for cut in range(0, len(stream) + 1, 11):
            assert await ending(books, wire, stream[:cut], raises=True) == ends[cut], cut
    told_at = ends.index(End(ends[-1].charged, estimated=False))
    # Not before the numbers are there, and from then on whatever else is missing.
    assert told_at > stream.rindex(wire.usage)
    assert set(ends[told_at:]) == {End(wire.cost, estimated=False)}
    _check_estimates(wire, ends[:told_at])


def _check_estimates(wire: Wire, ends: list[End]) -> None:
    """Nothing for nothing; then the input, and no more output than the bytes that came can have been."""
    assert ends[0] == End(None, estimated=False)
    held = len(json.dumps(wire.body)) + 2 * 50
    the_input = max(ends[1].charged or 0, wire.cost)
    for cut, end in enumerate(ends[1:], start=1):
        assert end.estimated, cut
        assert end.charged is not None, cut
        assert 16 < end.charged <= min(held, the_input + 2 * (cut // 4 + 1)), cut


@asynccontextmanager
async def rich_books() -> AsyncIterator[Books]:
    """Books in which alice can pay for thousands of calls."""
    async with open_books() as books:
        await books.manager.add_credits("alice", 10**9, "adjustment", idempotency_key="more")
        yield books
