"""Reading answers in tests as a door does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ducto.middleware.providers import CallRequest, Provider, StreamParser, StreamReader, UsageReading
from ducto.usage import UsageMetrics

__all__ = ["buckets", "called", "cut", "feed", "read_stream", "sse"]


def buckets(usage: UsageMetrics | None) -> dict[str, Any]:
    """What was used, without the model and what is 0."""
    assert usage is not None
    return usage.model_dump(exclude_defaults=True, exclude={"model"})


def called(*names: str) -> tuple[dict[str, str], ...]:
    return tuple({"name": name} for name in names)


def sse(*events: dict[str, Any] | str) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def cut(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`stream` in pieces."""
    places = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
    return [stream[i:j] for i, j in pairwise(places)]


def feed(parser: StreamParser, reader: StreamReader, pieces: Sequence[bytes]) -> bytes:
    """Read the pieces of a stream to its end; the bytes that come out."""
    out = b""
    for piece in pieces:
        for item in parser.feed(piece):
            reader.feed(item)
            out += item.raw
    last = parser.flush()
    if last is not None:
        reader.feed(last)
        out += last.raw
    return out


def read_stream(
    provider: Provider, stream: bytes, *, request: CallRequest, media_type: str = "text/event-stream"
) -> UsageReading:
    parser = provider.stream_parser(media_type, request=request)
    assert parser is not None
    reader = provider.stream_reader(request=request)
    assert feed(parser, reader, [stream]) == stream
    return reader.reading()
