"""Answers in Gemini's own format: a stream is server-sent events, or one JSON array."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply
from ducto.testing.simulator.wire import Event, JSONWire

__all__ = ["GeminiArrayWire", "GeminiWire"]


class GeminiWire(JSONWire):
    """`generateContent`, and with `stream` `streamGenerateContent` with `alt=sse`."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream

    def streams(self, body: Mapping[str, Any]) -> bool:
        return self._stream

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        candidates = [_candidate(index, reply.text, _reason(reply)) for index in range(reply.choices)]
        return _chunk(reply, candidates, _told(reply, fault, reply.output_tokens))

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        written = 0
        for piece in reply.pieces:
            written += reply.choices
            candidates = [_candidate(index, piece, None) for index in range(reply.choices)]
            yield None, _chunk(reply, candidates, _told(reply, fault, written))
        candidates = [_candidate(index, "", _reason(reply)) for index in range(reply.choices)]
        yield None, _chunk(reply, candidates, _told(reply, fault, reply.output_tokens))

    def error_body(self, message: str) -> dict[str, Any]:
        return {"error": {"code": 500, "message": message, "status": "INTERNAL"}}


class GeminiArrayWire(GeminiWire):
    """`streamGenerateContent` without `alt=sse`: the same chunks, as the elements of an array."""

    stream_type = "application/json; charset=UTF-8"

    def frames(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[bytes]:
        before = b"["
        for frame in super().frames(body, reply, fault):
            yield frame if fault.garbage else before + frame
            before = b",\r\n"
        if not fault.without_end:
            yield b"]"

    def frame(self, event: Event, fault: Fault) -> bytes:
        return json.dumps(event[1], indent=2).encode()


def _told(reply: Reply, fault: Fault, written: int) -> dict[str, Any] | None:
    if fault.usage == "missing":
        return None
    given, made = (0, 0) if fault.usage == "zero" else (reply.input_tokens, written)
    usage = {"promptTokenCount": given, "candidatesTokenCount": made, "totalTokenCount": given + made}
    return {**usage, **(fault.usage_fields or {})}


def _chunk(reply: Reply, candidates: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
    made = {"candidates": candidates, "modelVersion": reply.model, "responseId": "simulated"}
    return made if usage is None else {**made, "usageMetadata": usage}


def _candidate(index: int, text: str, reason: str | None) -> dict[str, Any]:
    made = {"content": {"parts": [{"text": text}], "role": "model"}, "index": index}
    return made if reason is None else {**made, "finishReason": reason}


def _reason(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.stopped_by_limit else "STOP"
