"""Every way to cut a stream: the same bytes come out, and the same usage is read, however it arrives."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto.middleware.providers import DEFAULT_ROUTES, CallRequest, StreamParser, estimate_usage
from ducto.middleware.providers.aws_event_stream import DAMAGED, MEDIA_TYPE, AWSEventStreamParser
from ducto.middleware.providers.json_array import JSONArrayParser
from ducto.middleware.sse import MAX_EVENT_BYTES, SSEParser
from ducto.testing.simulator.bedrock_wire import aws_message
from tests.providers.support import cut, feed

REQUEST = CallRequest(model="m", input_bytes=400, stream=True)
GEMINI = DEFAULT_ROUTES["/v1beta/models/{model}:streamGenerateContent"]
CONVERSE = DEFAULT_ROUTES["/model/{model}/converse-stream"]

ARRAY = json.dumps(
    [
        {"candidates": [{"content": {"parts": [{"text": 'a"]}[{\\" \\'}]}}]},
        {
            "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6},
        },
    ],
    indent=2,
).encode()
BINARY = b"".join(
    aws_message(json.dumps(data).encode(), **{":message-type": "event", ":event-type": kind})
    for kind, data in (
        ("contentBlockDelta", {"delta": {"text": "hello"}}),
        ("metadata", {"usage": {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6}}),
    )
)


@pytest.mark.parametrize(
    ("provider", "stream", "media_type"),
    [(GEMINI, ARRAY, "application/json"), (CONVERSE, BINARY, MEDIA_TYPE)],
)
def test_a_stream_cut_at_every_offset(provider: Any, stream: bytes, media_type: str) -> None:
    for offset in range(len(stream) + 1):
        reader = provider.stream_reader(request=REQUEST)
        parser = provider.stream_parser(media_type, request=REQUEST)
        assert feed(parser, reader, cut(stream, [offset])) == stream
        reading = reader.reading()
        assert reading.final
        assert (reading.usage.input_tokens, reading.usage.output_tokens) == (4, 2)
        assert reader.finished
        assert reading.problems == ()


PARSERS: list[Any] = [SSEParser, JSONArrayParser, AWSEventStreamParser]
PIECES = st.sampled_from(
    [b"[", b"{", b"}", b"]", b'"', b"\\", b",", b"\n\n", b"data: ", b"\x00\x00\x00\x10", ARRAY, BINARY]
)


@given(
    stream=st.lists(PIECES | st.binary(max_size=30), max_size=12).map(b"".join),
    cuts=st.lists(st.integers(0, 900), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_come_out_again_and_no_count_is_negative(stream: bytes, cuts: list[int]) -> None:
    for provider in DEFAULT_ROUTES.values():
        for make in PARSERS:
            parser: StreamParser = make()
            reader = provider.stream_reader(request=CallRequest(model="m", stream=True, usage_requested=True))
            assert feed(parser, reader, cut(stream, cuts)) == stream
            reading = reader.reading()
            assert reading.delivered_bytes >= 0
            if reading.usage is not None:
                assert estimate_usage(REQUEST, delivered_bytes=8, known=reading).total_output_tokens >= 2


@pytest.mark.parametrize("size", [40_000, MAX_EVENT_BYTES - 40, MAX_EVENT_BYTES + 1, 300_000])
@pytest.mark.parametrize("step", [1_000, 48 * 1024, 10**6])
def test_large_items_are_bounded_and_keep_their_ends(size: int, step: int) -> None:
    data = b'{"start":1,"x":"' + b"x" * (size - 25) + b'","end":2}'
    streams: list[tuple[StreamParser, bytes]] = [
        (JSONArrayParser(), b"[" + data + b"," + data + b"]"),
        (AWSEventStreamParser(), aws_message(data, **{":event-type": "e"}) * 2),
    ]
    for parser, stream in streams:
        items = [item for at in range(0, len(stream), step) for item in parser.feed(stream[at : at + step])]
        assert b"".join(item.raw for item in items) == stream
        whole = [item for item in items if item.data]
        assert len(whole) == 2
        for item in whole:
            assert item.truncated == (item.size > MAX_EVENT_BYTES)
            assert item.data.startswith(b'{"start":1')
            assert (item.tail if item.truncated else item.data).endswith(b'"end":2}')
            assert len(item.data) + len(item.tail) <= MAX_EVENT_BYTES


def test_a_length_that_cannot_be_true_ends_the_reading() -> None:
    prelude = struct.pack(">II", 2**31, 0)
    wrong_checksum = BINARY[:8] + b"\x00\x00\x00\x00" + BINARY[12:]
    for broken in (b"\x00" * 40, prelude + struct.pack(">I", zlib.crc32(prelude)) + b"\x00" * 28, wrong_checksum):
        parser = AWSEventStreamParser()
        items = [*parser.feed(BINARY + broken), *parser.feed(BINARY)]
        assert [item.event for item in items] == ["contentBlockDelta", "metadata", DAMAGED, ""]
        assert b"".join(item.raw for item in items) == BINARY + broken + BINARY


def test_headers_of_every_type_are_stepped_over() -> None:
    def header(name: bytes, kind: int, value: bytes) -> bytes:
        return bytes([len(name)]) + name + bytes([kind]) + value

    headers = b"".join(
        [
            header(b"t", 0, b""),
            header(b"f", 1, b""),
            header(b"b", 2, b"x"),
            header(b"s", 3, b"xx"),
            header(b"i", 4, b"xxxx"),
            header(b"l", 5, b"x" * 8),
            header(b"y", 6, b"\x00\x03abc"),
            header(b"d", 8, b"x" * 8),
            header(b"u", 9, b"x" * 16),
            header(b":event-type", 7, b"\x00\x05hello"),
        ]
    )
    prelude = struct.pack(">II", 16 + len(headers) + 2, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + b"{}"
    (item,) = AWSEventStreamParser().feed(message + struct.pack(">I", zlib.crc32(message)))
    assert (item.event, item.data) == ("hello", b"{}")
