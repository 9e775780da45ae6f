"""Answers of Amazon Bedrock's Converse; a stream is AWS's binary event stream."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply
from ducto.testing.simulator.wire import Event, JSONWire

__all__ = ["ConverseWire", "aws_message"]


class ConverseWire(JSONWire):
    """`converse`, and with `stream` `converse-stream`."""

    stream_type = "application/vnd.amazon.eventstream"

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream

    def streams(self, body: Mapping[str, Any]) -> bool:
        return self._stream

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        message = {"role": "assistant", "content": [{"text": reply.text}]}
        made = {"output": {"message": message}, "stopReason": _reason(reply), "metrics": {"latencyMs": 1}}
        usage = _told(reply, fault)
        return made if usage is None else {**made, "usage": usage}

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        yield "messageStart", {"role": "assistant"}
        for piece in reply.pieces:
            yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}
        yield "contentBlockStop", {"contentBlockIndex": 0}
        yield "messageStop", {"stopReason": _reason(reply)}
        usage = _told(reply, fault)
        metadata: dict[str, Any] = {"metrics": {"latencyMs": 1}}
        yield "metadata", metadata if usage is None else {**metadata, "usage": usage}

    def frame(self, event: Event, fault: Fault) -> bytes:
        kind, data = event
        payload = data.encode() if isinstance(data, str) else json.dumps(data).encode()
        if kind is None:
            return aws_message(payload, **{":message-type": "exception", ":exception-type": "internalServerException"})
        named = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        return aws_message(payload, **named)

    def error_body(self, message: str) -> dict[str, Any]:
        return {"message": message}


def aws_message(payload: bytes, **headers: str) -> bytes:
    """One message of an AWS event stream, with text headers."""
    block = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _told(reply: Reply, fault: Fault) -> dict[str, Any] | None:
    if fault.usage == "missing":
        return None
    given, made = (0, 0) if fault.usage == "zero" else (reply.input_tokens, reply.output_tokens)
    usage = {"inputTokens": given, "outputTokens": made, "totalTokens": given + made}
    return {**usage, **(fault.usage_fields or {})}


def _reason(reply: Reply) -> str:
    return "max_tokens" if reply.stopped_by_limit else "end_turn"
