"""What LiteLLM's answers say that a call used: its objects are given to the readers of the wire formats."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ducto.middleware.admitting import ReadRequest
from ducto.middleware.litellm.formats import CHAT
from ducto.middleware.providers import Provider, UsageReading, load_object
from ducto.middleware.sse import SSEEvent, SSEParser

__all__ = ["StreamTally", "as_object", "read_answer", "read_logged_answer"]

logger: logging.Logger = logging.getLogger("ducto.litellm")

#: In the place of an answer LiteLLM logs this text with the lines of a passed-through stream, if it cannot read it.
_UNPARSED_STREAM = "cannot parse chunks to standard response object. Chunks="


class StreamTally:
    """Counts what a stream delivered, from the items that LiteLLM passes on: its objects, or bytes of events."""

    def __init__(self, request: ReadRequest) -> None:
        self._reader = request.provider.stream_reader(request=request.call)
        self._parser = SSEParser()
        #: Something was passed on to the client.
        self.begun: bool = False

    @property
    def failed(self) -> bool:
        """The provider reported an error within the stream."""
        return self._reader.failed

    def take(self, item: object) -> None:
        """Read one item. Never raises."""
        self.begun = True
        if isinstance(item, str):
            item = item.encode("utf-8", "replace")
        if isinstance(item, bytes):
            for event in self._parser.feed(item):
                self._reader.feed(event)
            return
        body = as_object(item)
        if body is None:
            return
        self._reader.feed(SSEEvent(raw=b"", data=json.dumps(body, default=str).encode()))

    def reading(self) -> UsageReading:
        """What is known so far."""
        rest = self._parser.flush()
        if rest is not None:
            self._reader.feed(rest)
        return _believed(self._reader.reading())


def read_answer(answer: object, request: ReadRequest, *, provider: Provider | None = None) -> UsageReading:
    """The usage in a plain answer, in the format of `request` unless `provider` says another."""
    return _believed((provider or request.provider).usage_from_body(as_object(answer), request=request.call))


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    reading: UsageReading | None
    #: It came to its end.
    complete: bool


def read_logged_answer(answer: object, kwargs: Mapping[str, Any], request: ReadRequest) -> LoggedAnswer:
    """The usage in what a success event has: the answer, or of a passed-through call its body or its events."""
    passed_through = kwargs.get("passthrough_logging_payload")
    if isinstance(passed_through, dict) and isinstance(passed_through.get("response_body"), dict):
        return LoggedAnswer(read_answer(passed_through["response_body"], request), complete=True)
    body = as_object(answer)
    if body is None:
        return LoggedAnswer(None, complete=True)
    if body.get("object") == "chat.completion":
        return LoggedAnswer(read_answer(body, request, provider=CHAT), complete=True)
    text = body.get("response")
    if not isinstance(text, str):
        return LoggedAnswer(read_answer(body, request), complete=True)
    if not text.startswith(_UNPARSED_STREAM):
        return LoggedAnswer(read_answer(load_object(text.encode("utf-8", "replace")), request), complete=True)
    tally = StreamTally(request)
    tally.take(_events_in(text.removeprefix(_UNPARSED_STREAM)))
    reading = tally.reading()
    return LoggedAnswer(reading, complete=reading.final)


def as_object(value: object) -> dict[str, Any] | None:
    """`value` as plain JSON values; `None` for what is no object."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if not callable(dump):
        return None
    try:
        # Providers send values that LiteLLM's types do not foresee; that is no reason for a warning here.
        dumped = dump(mode="json", warnings=False)
    except (ValueError, TypeError):
        logger.warning("An answer of type %s cannot be read.", type(value).__name__)
        return None
    return dumped if isinstance(dumped, dict) else None


def _events_in(lines: str) -> bytes:
    """The bytes of a stream from the list of its lines, as Python prints it; blank lines are not in it."""
    try:
        parsed = ast.literal_eval(lines)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return b""
    if not isinstance(parsed, list):
        return b""
    events = []
    for line in parsed:
        text = str(line)
        # An event ends after its data, where a blank line was.
        events.append(f"{text}\n\n" if text.startswith("data:") else f"{text}\n")
    return "".join(events).encode("utf-8", "replace")


def _believed(reading: UsageReading) -> UsageReading:
    """`reading` as far as LiteLLM can be believed: where it does not know the usage of an answer, it says 0."""
    if reading.explicit_zero:
        return replace(reading, usage=None, final=False, explicit_zero=False)
    return reading
