"""Answers in Anthropic's format: the message and, for streams, its events as JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply
from ducto.testing.simulator.wire import Event, JSONWire

__all__ = ["MessagesWire"]


class MessagesWire(JSONWire):
    """Messages."""

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        return message_body(reply, told_message_usage(reply, fault))

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        for event in message_events(reply, fault):
            yield event["type"], event

    def error_event(self, message: str) -> Event:
        return "error", self.error_body(message)

    def error_body(self, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "api_error", "message": message}}


def told_message_usage(reply: Reply, fault: Fault) -> dict[str, Any] | None:
    """The usage object of a plain answer, `None` if none is to be told."""
    if fault.usage == "missing":
        return None
    given, written = (0, 0) if fault.usage == "zero" else (reply.input_tokens, reply.output_tokens)
    usage = {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": written,
        "server_tool_use": None,
        "service_tier": "standard",
    }
    return {**usage, **(fault.usage_fields or {})}


def message_body(reply: Reply, usage: dict[str, Any] | None) -> dict[str, Any]:
    content = [{"type": "text", "text": reply.text, "citations": None}]
    message = {**_message(reply), "content": content, "stop_reason": _stop_reason(reply)}
    return message if usage is None else {**message, "usage": usage}


def message_events(reply: Reply, fault: Fault) -> Iterator[dict[str, Any]]:
    """The events of a streamed message; the last is `message_stop`.

    The usage is told in two places: the start has the input and one token of output, the delta before the end
    the running totals. Fields of the fault are laid over both.
    """
    usage = told_message_usage(reply, fault)
    start = _message(reply)
    if usage is not None:
        begun = 0 if fault.usage == "zero" else 1
        start["usage"] = {**usage, "output_tokens": begun, **(fault.usage_fields or {})}
    yield {"type": "message_start", "message": start}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for piece in reply.pieces:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield {"type": "content_block_stop", "index": 0}
    delta: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(reply), "stop_sequence": None},
    }
    if usage is not None:
        delta["usage"] = {"output_tokens": usage["output_tokens"], **(fault.usage_fields or {})}
    yield delta
    yield {"type": "message_stop"}


def _message(reply: Reply) -> dict[str, Any]:
    return {
        "id": "msg_simulated",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(reply: Reply) -> str:
    return "max_tokens" if reply.stopped_by_limit else "end_turn"
