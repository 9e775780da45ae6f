"""The SSE parser: lossless for every cut, equal for every cut, bounded, and as the standard says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto.middleware import sse
from ducto.middleware.sse import MAX_EVENT_BYTES, SSEEvent, SSEParser

LF = b'data: {"a": 1}\n\nevent: ping\ndata: x\ndata:y\n\n: comment\n\ndata: \xe2\x82\xac\n\ndata: [DONE]\n\n'
STREAMS = {
    "lf": LF,
    "crlf": LF.replace(b"\n", b"\r\n"),
    "cr": LF.replace(b"\n", b"\r"),
    "bom": b"\xef\xbb\xbf" + LF,
    "mixed": b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\r\n\r\n\n\n\ndata: e\n\n",
    "unfinished": LF + b"data: last",
    "blank lines": b"\n\n\n" + LF + b"\n",
}


def parse(*chunks: bytes) -> list[SSEEvent]:
    parser = SSEParser()
    items = [item for chunk in chunks for item in parser.feed(chunk)]
    last = parser.flush()
    return items if last is None else [*items, last]


def said(items: list[SSEEvent]) -> list[tuple[str, bytes]]:
    return [(item.event, item.data) for item in items if item.data]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_every_cut_gives_the_same_events_and_the_same_bytes(stream: bytes) -> None:
    whole = said(parse(stream))
    assert len(whole) >= 4
    for cut in range(len(stream) + 1):
        items = parse(stream[:cut], stream[cut:])
        assert b"".join(item.raw for item in items) == stream
        assert said(items) == whole
    single = parse(*(stream[at : at + 1] for at in range(len(stream))))
    assert b"".join(item.raw for item in single) == stream
    assert said(single) == whole


@pytest.mark.parametrize("name", ["lf", "crlf", "cr", "bom"])
def test_fields_are_read_as_the_standard_says(name: str) -> None:
    assert said(parse(STREAMS[name])) == [
        ("", b'{"a": 1}'),
        ("ping", b"x\ny"),
        ("", "€".encode()),
        ("", b"[DONE]"),
    ]


def test_mixed_line_ends() -> None:
    assert [data for _, data in said(parse(STREAMS["mixed"]))] == [b"a", b"b", b"c", b"d", b"e"]


def test_only_one_space_and_only_known_fields_are_taken() -> None:
    assert said(parse(b"id: 7\nretry: 5\ndata:  two spaces\ndatax: no\ndata\n\n")) == [("", b" two spaces\n")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_complete_event_is_returned_at_once(end: bytes) -> None:
    parser = SSEParser()
    for number in range(3):
        (item,) = parser.feed(b"data: %d" % number + end + end)
        assert (item.data, item.complete) == (b"%d" % number, True)


def test_a_crlf_cut_in_its_last_line_end_stays_with_its_event() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\r\n\r") == []
    (item,) = parser.feed(b"\n")
    assert item.raw == b"data: a\r\n\r\n"


def test_an_event_without_its_blank_line_is_found_by_flush() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: 1\n") == []
    item = parser.flush()
    assert item is not None
    assert (item.data, item.complete, item.raw) == (b"1", False, b"data: 1\n")
    assert parser.flush() is None


@pytest.mark.parametrize("size", [49_000, 60_000, MAX_EVENT_BYTES - 8, MAX_EVENT_BYTES - 7, 70_000, 1_000_000])
@pytest.mark.parametrize("step", [1_000, 7_777, 10**7])
def test_a_large_event_is_bounded_and_passes_through(size: int, step: int) -> None:
    payload = bytes(65 + number % 26 for number in range(size))
    stream = b"data: " + payload + b"\n\ndata: next\n\n"
    items = parse(*(stream[at : at + step] for at in range(0, len(stream), step)))
    assert b"".join(item.raw for item in items) == stream
    large, following = (item for item in items if item.data)
    assert following.data == b"next"
    assert large.size == size + 8
    if large.truncated:
        assert large.size > MAX_EVENT_BYTES
        assert payload.startswith(large.data)
        assert (payload + b"\n\n").endswith(large.tail)
        assert len(large.data) + len(large.tail) <= MAX_EVENT_BYTES
    else:
        assert large.size <= MAX_EVENT_BYTES
        assert large.data == payload


def test_memory_stays_flat_under_an_endless_line() -> None:
    parser = SSEParser()
    for _ in range(2_000):
        parser.feed(b"x" * 10_000)
        assert len(parser._pending) + len(parser._tail) + len(parser._head) <= 2 * MAX_EVENT_BYTES


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"\n\n"])))
def test_any_bytes_pass_through_unchanged(chunks: list[bytes]) -> None:
    assert b"".join(item.raw for item in parse(*chunks)) == b"".join(chunks)


@given(st.lists(st.sampled_from([b"\n", b"\r", b"data: x", b"data:y", b": c", b"event: e"]), max_size=30))
def test_any_cut_of_any_lines_gives_the_same_events(tokens: list[bytes]) -> None:
    stream = b"".join(tokens)
    whole = said(parse(stream))
    assert said(parse(*(stream[at : at + 1] for at in range(len(stream))))) == whole
    assert said(parse(*tokens)) == whole


def test_hiding_one_event_leaves_all_other_bytes() -> None:
    hidden = b"data: " + json.dumps({"choices": [], "usage": {}}).encode() + b"\n\n"
    stream = LF + hidden + b"data: [DONE]\n\n"
    for cut in range(len(stream)):
        items = parse(stream[:cut], stream[cut:])
        assert b"".join(item.raw for item in items if item.raw != hidden) == stream.replace(hidden, b"")


TOKENS = [b"\n", b"\r\n", b"\r", b"data: 12345", b"data: 1234567890123", b"x" * 9, b"event: e"]


@given(st.lists(st.sampled_from(TOKENS), max_size=20), st.integers(1, 9))
def test_large_events_end_where_small_ones_do(tokens: list[bytes], step: int) -> None:
    """With limits of a few bytes, so that every cut around them is tried."""
    stream = b"".join(tokens)
    chunks = [stream[at : at + step] for at in range(0, len(stream), step)]
    boundaries = [item.size for item in parse(*chunks) if item.data]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "HEAD_BYTES", 24)
        patch.setattr(sse, "TAIL_BYTES", 8)
        patch.setattr(sse, "MAX_EVENT_BYTES", 32)
        items = parse(*chunks)
    assert b"".join(item.raw for item in items) == stream
    whole = {item.size for item in items if item.data}
    assert all(size in whole for size in boundaries if size <= 24)
    for item in items:
        assert item.truncated == (item.size > 32 and bool(item.data)) or not item.data
