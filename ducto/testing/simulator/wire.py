"""What the simulator needs of a wire format: the body of a plain answer, the frames of a stream, and an error."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply, reply_to

__all__ = ["GARBAGE", "LINE_ENDS", "JSONWire", "Wire", "sse_frame"]

LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
#: Neither JSON nor proper events.
GARBAGE = b'data: {"choices": [{"delta": \xff\xfe\n\n<html>oops</html>\ndata: NaN\r\rdata: [[[[\n\n: \n'

Event = tuple[str | None, dict[str, Any] | str]


class Wire(ABC):
    """One format. `stream_type` is the media type of its streams."""

    stream_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    def read(self, raw: bytes, content_type: str) -> Any:
        """The body of a request, `None` for one that cannot be read."""
        try:
            return json.loads(raw)
        except ValueError:
            return None

    def reply(self, body: Mapping[str, Any], fault: Fault, *, model: str | None) -> Reply:
        """What is answered to a request that names a model, in its path or its body."""
        return reply_to(body, fault, model=model)

    def streams(self, body: Mapping[str, Any]) -> bool:
        return body.get("stream") is True

    @abstractmethod
    def plain(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> tuple[str, bytes]:
        """Media type and bytes of a plain answer."""

    def frames(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[bytes]:
        """The frames of a stream, with what the fault does to them."""
        if fault.garbage:
            yield GARBAGE
            return
        events = list(self.events(body, reply, fault))
        for number, event in enumerate(events[:-1] if fault.without_end else events):
            if number == fault.error_after_events:
                yield self.frame(self.error_event("simulated error in the stream"), fault)
                return
            yield self.frame(event, fault)

    def frame(self, event: Event, fault: Fault) -> bytes:
        return sse_frame(event, LINE_ENDS[fault.line_end])

    @abstractmethod
    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        """`(type, payload)` of each event, of which the last is the terminal one."""

    def error_event(self, message: str) -> Event:
        return None, self.error_body(message)

    def error_body(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


class JSONWire(Wire):
    """A format whose plain answers are JSON."""

    def plain(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> tuple[str, bytes]:
        return "application/json", GARBAGE if fault.garbage else json.dumps(self.made(body, reply, fault)).encode()

    @abstractmethod
    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        """The plain answer."""


def sse_frame(event: Event, end: bytes) -> bytes:
    kind, data = event
    named = b"" if kind is None else b"event: " + kind.encode() + end
    text = data if isinstance(data, str) else json.dumps(data)
    return named + b"data: " + text.encode() + end + end
