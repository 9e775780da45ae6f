"""Reading the usage out of an answer while it passes: a stream of events, plain JSON, or something unreadable."""

from __future__ import annotations

from ducto.middleware.admitting import ReadRequest
from ducto.middleware.headers import Headers, header_values
from ducto.middleware.providers import StreamParser, StreamReader, UsageReading, load_object
from ducto.middleware.sse import SSEParser

__all__ = ["AnswerReading", "PlainReading", "StreamReading", "UnreadReading", "reading_for"]


class AnswerReading:
    """What is known of an answer so far."""

    __slots__ = ("body_bytes",)

    def __init__(self) -> None:
        #: Bytes of the body that came from the provider.
        self.body_bytes: int = 0

    @property
    def finished(self) -> bool:
        """The provider has said all that it will say, though the connection may still be open."""
        return False

    @property
    def failed(self) -> bool:
        """The provider reported an error within the answer."""
        return False

    def result(self, request: ReadRequest) -> UsageReading | None:
        """What it says about usage; `None` if it cannot be read."""
        return None


class UnreadReading(AnswerReading):
    """An answer in a form that is not known, or encoded."""

    __slots__ = ()


class StreamReading(AnswerReading):
    """Events, in whatever framing. Either `feed` them, or take from `feed_visible` what the client is to see."""

    __slots__ = ("_parser", "_reader")

    def __init__(self, reader: StreamReader, parser: StreamParser | None = None) -> None:
        """`parser` cuts the bytes into events; by default they are server-sent events."""
        super().__init__()
        self._parser = parser if parser is not None else SSEParser()
        self._reader = reader

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def failed(self) -> bool:
        return self._reader.failed

    def feed(self, chunk: bytes) -> bytes:
        """Read `chunk`, and return it."""
        self._take(chunk)
        return chunk

    def feed_visible(self, chunk: bytes) -> bytes:
        """Read `chunk`; the bytes of the events that it completed, without one that only we asked for.

        It is `chunk` itself in the usual case that it is made of whole events.
        """
        shown = self._take(chunk)
        if len(shown) == 1:
            return chunk if len(shown[0]) == len(chunk) else shown[0]
        return b"".join(shown)

    def _take(self, chunk: bytes) -> list[bytes]:
        """Read `chunk`; what the client is to see of each event that it completed."""
        self.body_bytes += len(chunk)
        parser, reader = self._parser, self._reader
        events = parser.whole_events(chunk) if isinstance(parser, SSEParser) else None
        if events is None:
            return [item.raw for item in parser.feed(chunk) if not reader.feed(item)]
        shown = []
        for event in events:
            repeated = reader.feed_repeated(event)
            if repeated is not None:
                shown.append(repeated)
            else:
                shown += [item.raw for item in parser.feed(event) if not reader.feed(item)]
        return shown

    def end(self) -> bytes:
        """Read what is left at the end; its bytes, which `feed_visible` has not returned yet."""
        item = self._parser.flush()
        if item is None or self._reader.feed(item):
            return b""
        return item.raw

    def result(self, request: ReadRequest) -> UsageReading | None:
        return self._reader.reading()


class PlainReading(AnswerReading):
    """JSON, kept up to a limit to be read whole."""

    __slots__ = ("_max_bytes", "_parts", "too_large")

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        #: It outgrew the limit, and counts as unreadable.
        self.too_large: bool = False

    @property
    def body(self) -> bytes:
        """What came so far."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def feed(self, chunk: bytes) -> None:
        self.body_bytes += len(chunk)
        self._parts.append(chunk)
        self.too_large = self.body_bytes > self._max_bytes

    def take(self) -> bytes:
        """`body`, which is let go of."""
        body = self.body
        self._parts = []
        return body

    def result(self, request: ReadRequest) -> UsageReading | None:
        if self.too_large:
            return None
        return request.provider.usage_from_body(load_object(self.body), request=request.call)


def reading_for(headers: Headers, request: ReadRequest, *, max_bytes: int) -> AnswerReading:
    """How to read the decoded body of a successful answer with these headers; plain JSON up to `max_bytes`."""
    values = header_values(headers, b"content-type")
    media_type = values[0].split(b";", 1)[0].strip().lower() if values else b""
    parser = request.provider.stream_parser(media_type.decode("latin-1"), request=request.call)
    if parser is not None:
        return StreamReading(request.provider.stream_reader(request=request.call), parser)
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return PlainReading(max_bytes=max_bytes)
    return UnreadReading()
