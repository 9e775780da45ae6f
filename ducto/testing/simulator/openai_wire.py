"""Answers in OpenAI's formats: bodies and, for streams, events as JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply, reply_to
from ducto.testing.simulator.wire import Event, JSONWire

__all__ = ["CompletionsWire", "EmbeddingsWire", "ResponsesWire"]

Kind = Literal["chat", "completions"]
_CREATED = 1_767_225_600
_IDS = {"chat": "chatcmpl-simulated", "completions": "cmpl-simulated"}


class CompletionsWire(JSONWire):
    """Chat and legacy completions."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        return chat_body(self._kind, reply, told_completion_usage(reply, fault))

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        for chunk in completion_chunks(self._kind, body, reply, fault):
            yield None, chunk
        yield None, "[DONE]"


class EmbeddingsWire(JSONWire):
    """Embeddings, which have no output and no streams."""

    def reply(self, body: Mapping[str, Any], fault: Fault, *, model: str | None) -> Reply:
        return reply_to(body, fault, with_text=False, model=model)

    def streams(self, body: Mapping[str, Any]) -> bool:
        return False

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        return embeddings_body(body, reply, told_embedding_usage(reply, fault))

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        return iter(())


class ResponsesWire(JSONWire):
    """Responses."""

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        return responses_body(reply, told_responses_usage(reply, fault))

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        for event in responses_events(reply, fault):
            yield event["type"], event

    def error_event(self, message: str) -> Event:
        return "error", {
            "type": "error",
            "code": "server_error",
            "message": message,
            "param": None,
            "sequence_number": 0,
        }


def _overlaid(usage: dict[str, Any], fault: Fault) -> dict[str, Any] | None:
    if fault.usage == "missing":
        return None
    return {**usage, **(fault.usage_fields or {})}


def told_completion_usage(reply: Reply, fault: Fault) -> dict[str, Any] | None:
    """The usage object of chat and completions, `None` if none is to be told."""
    given, written = (0, 0) if fault.usage == "zero" else (reply.input_tokens, reply.output_tokens)
    return _overlaid(_completion_totals(given, written), fault)


def told_embedding_usage(reply: Reply, fault: Fault) -> dict[str, Any] | None:
    given = 0 if fault.usage == "zero" else reply.input_tokens
    return _overlaid({"prompt_tokens": given, "total_tokens": given}, fault)


def told_responses_usage(reply: Reply, fault: Fault) -> dict[str, Any] | None:
    given, written = (0, 0) if fault.usage == "zero" else (reply.input_tokens, reply.output_tokens)
    usage = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + written,
    }
    return _overlaid(usage, fault)


def chat_body(kind: Kind, reply: Reply, usage: dict[str, Any] | None) -> dict[str, Any]:
    """A plain answer of chat or completions."""
    reason = "length" if reply.stopped_by_limit else "stop"
    choices = [
        {"index": index, "finish_reason": reason, "logprobs": None, **_whole(kind, reply.text)}
        for index in range(reply.choices)
    ]
    name = "chat.completion" if kind == "chat" else "text_completion"
    body = _envelope(kind, reply, name, choices)
    return body if usage is None else {**body, "usage": usage}


def completion_chunks(kind: Kind, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer of chat or completions, without `[DONE]`."""
    usage = told_completion_usage(reply, fault)
    options = body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    extra = asked and usage is not None and fault.usage in ("normal", "zero")
    name = "chat.completion.chunk" if kind == "chat" else "text_completion"

    def chunk(choices: list[dict[str, Any]], told: dict[str, Any] | None) -> dict[str, Any]:
        made = _envelope(kind, reply, name, choices)
        return {**made, "usage": told} if asked or told is not None else made

    written = 0
    for number, piece in enumerate(reply.pieces):
        for index in range(reply.choices):
            written += 1
            running = None
            if fault.usage == "cumulative" and usage is not None:
                running = {**_completion_totals(reply.input_tokens, written), **(fault.usage_fields or {})}
            yield chunk([_part(kind, index, piece, first=number == 0)], running)
    reason = "length" if reply.stopped_by_limit else "stop"
    for index in range(reply.choices):
        told = usage if fault.usage in ("last_choice", "cumulative") and index == reply.choices - 1 else None
        yield chunk([{**_part(kind, index, "", first=False), "finish_reason": reason}], told)
    if extra:
        yield chunk([], usage)


def embeddings_body(body: Mapping[str, Any], reply: Reply, usage: dict[str, Any] | None) -> dict[str, Any]:
    given = body.get("input")
    count = len(given) if isinstance(given, list) and not all(isinstance(item, int) for item in given) else 1
    # The SDK asks for base64 by itself and decodes it: four little-endian floats of 0.
    vector: object = "AAAAAAAAAAAAAAAAAAAAAA==" if body.get("encoding_format") == "base64" else [0.0] * 4
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    made = {"object": "list", "data": data, "model": reply.model}
    return made if usage is None else {**made, "usage": usage}


def responses_body(reply: Reply, usage: dict[str, Any] | None) -> dict[str, Any]:
    """A finished response."""
    stopped = reply.stopped_by_limit
    return {
        **_response(reply, "incomplete" if stopped else "completed"),
        "incomplete_details": {"reason": "max_output_tokens"} if stopped else None,
        "output": [_message(reply.text, "completed")],
        "usage": usage,
    }


def responses_events(reply: Reply, fault: Fault) -> Iterator[dict[str, Any]]:
    """The events of a streamed response; the last is the terminal one."""
    usage = told_responses_usage(reply, fault)
    started = _response(reply, "in_progress")
    final = responses_body(reply, usage)
    place = {"item_id": "msg_simulated", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    whole = {**part, "text": reply.text}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": _message(None, "in_progress")},
        {"type": "response.content_part.added", **place, "part": part},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in reply.pieces),
        {"type": "response.output_text.done", **place, "text": reply.text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": _message(reply.text, "completed")},
        {"type": f"response.{final['status']}", "response": final},
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def _completion_totals(given: int, written: int) -> dict[str, Any]:
    return {
        "prompt_tokens": given,
        "completion_tokens": written,
        "total_tokens": given + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _envelope(kind: Kind, reply: Reply, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": _IDS[kind],
        "object": name,
        "created": _CREATED,
        "model": reply.model,
        "service_tier": "default",
        "choices": choices,
    }


def _whole(kind: Kind, text: str) -> dict[str, Any]:
    if kind == "completions":
        return {"text": text}
    return {"message": {"role": "assistant", "content": text, "refusal": None}}


def _part(kind: Kind, index: int, piece: str, *, first: bool) -> dict[str, Any]:
    part: dict[str, Any] = {"index": index, "finish_reason": None, "logprobs": None}
    if kind == "completions":
        return {**part, "text": piece}
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    return {**part, "delta": {**delta, "content": piece} if piece else delta}


def _response(reply: Reply, status: str) -> dict[str, Any]:
    return {
        "id": "resp_simulated",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": reply.model,
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _message(text: str | None, status: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": "msg_simulated",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [part],
    }
