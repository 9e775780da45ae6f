"""Bytes out are bytes in, however a stream is cut; only the event that we asked for is hidden again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ducto.middleware.answer_reading import StreamReading
from ducto.middleware.providers import DEFAULT_ROUTES, CallRequest
from ducto.testing.simulator import Fault, ProviderSimulator
from tests.middleware.support import BODIES, CHAT, Books, Caller, app_sending, cost_of, open_books

ASKED = {"stream": True, "stream_options": {"include_usage": True}}


async def raw_stream(path: str, **fields: Any) -> bytes:
    """What the provider itself sends."""
    answer = await Caller(ProviderSimulator(default=Fault(chunks=3, **fields)).app).post(
        path, {**BODIES[path], **(ASKED if "completions" in path else {"stream": True})}
    )
    return answer.body


@pytest.mark.parametrize("line_end", ["lf", "crlf", "cr"])
@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_cut_at_every_offset_comes_out_as_it_went_in(path: str, line_end: Any) -> None:
    stream = await raw_stream(path, line_end=line_end)
    body = {**BODIES[path], **(ASKED if "completions" in path else {"stream": True})}
    async with open_books() as books:
        for offset in range(len(stream) + 1):
            app = app_sending([part for part in (stream[:offset], stream[offset:]) if part])
            answer = await Caller(books.door(app)).post(path, body)
            assert answer.body == stream
        charges = {row.charged for row in await books.transactions()}
        assert charges == {cost_of(body, 3)}


async def test_the_event_that_we_asked_for_is_hidden_at_every_offset() -> None:
    stream = await raw_stream(CHAT)
    start = stream.rindex(b"data: {", 0, stream.index(b"data: [DONE]"))
    end = stream.index(b"data: [DONE]")
    assert b'"choices": []' in stream[start:end]
    # Nor does a client that did not ask see what asking adds to the other events.
    visible = (stream[:start] + stream[end:]).replace(b', "usage": null', b"")
    body = {**BODIES[CHAT], "stream": True}
    async with open_books() as books:
        for offset in range(len(stream) + 1):
            answer = await Caller(books.door(app_sending([stream[:offset], stream[offset:]]))).post(CHAT, body)
            assert answer.body == visible
        assert {row.charged for row in await books.transactions()} == {cost_of(body, 3)}


async def test_each_event_goes_out_when_it_is_complete() -> None:
    reading = StreamReading(DEFAULT_ROUTES[CHAT].stream_reader(request=CallRequest(model="m", stream=True)))
    assert reading.feed_visible(b'data: {"choices":[{}]}\n\n') == b'data: {"choices":[{}]}\n\n'
    assert reading.feed_visible(b'data: {"cho') == b""
    assert reading.feed_visible(b'ices":[{}]}\n\ndata: ') == b'data: {"choices":[{}]}\n\n'
    assert reading.end() == b"data: "


@given(data=st.data(), stream=st.binary(max_size=400))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_come_out_again(data: st.DataObject, stream: bytes) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for path in BODIES:
        reading = StreamReading(DEFAULT_ROUTES[path].stream_reader(request=CallRequest(model="m", stream=True)))
        shown = b"".join(reading.feed_visible(part) for part in parts) + reading.end()
        assert shown == stream
        assert reading.body_bytes == len(stream)


async def test_usage_is_asked_for_only_where_the_client_did_not(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    await caller.post(CHAT, {**BODIES[CHAT], "stream": True})
    assert simulator.requests[-1].body["stream_options"] == {"include_usage": True}
    asked = {**BODIES[CHAT], **ASKED}
    answer = await caller.post(CHAT, asked)
    assert simulator.requests[-1].raw_body == json.dumps(asked).encode()
    assert b'"choices": []' in answer.body
    await Caller(books.door(simulator.app, include_usage=False)).post(CHAT, {**BODIES[CHAT], "stream": True})
    assert "stream_options" not in simulator.requests[-1].body
    assert (await books.transactions())[0].estimated


async def test_a_large_event_and_one_without_an_end_pass_through(books: Books) -> None:
    chunk = {"choices": [{"delta": {"content": "é" * 200_000}}]}
    stream = b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b'\n\ndata: {"choices":[]'
    app = app_sending([stream[i : i + 9_999] for i in range(0, len(stream), 9_999)])
    answer = await Caller(books.door(app)).post(CHAT, {**BODIES[CHAT], "stream": True})
    assert answer.body == stream
    assert (await books.transactions())[0].estimated


async def test_an_unknown_media_type_passes_unread_and_is_not_free(books: Books) -> None:
    app = app_sending([b"plain ", b"words"], media_type="text/plain")
    answer = await Caller(books.door(app)).post(CHAT, BODIES[CHAT])
    assert answer.body == b"plain words"
    assert await books.spent() > 0
