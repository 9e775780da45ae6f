"""Finding the usage in what provider SDKs return: OpenAI, Anthropic and LiteLLM objects, dicts, and their
streams.

The figures are read by the same readers as those of the wire formats; here is only found out which format it
is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ducto.middleware.providers import (
    AnthropicMessages,
    CallRequest,
    OpenAIChat,
    OpenAICompletions,
    OpenAIEmbeddings,
    OpenAIResponses,
    Provider,
    StreamReader,
    UsageReading,
    estimate_usage,
)
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["FoundUsage", "StreamUsage", "usage_in_result"]

#: What of an answer says what it is and what it used; its text is not needed.
_FIELDS = ("object", "type", "model", "service_tier", "usage", "output", "tool_usage")
#: How deep an answer is turned into plain values.
MAX_DEPTH = 12

_CHAT, _COMPLETIONS, _EMBEDDINGS = OpenAIChat(), OpenAICompletions(), OpenAIEmbeddings()
_RESPONSES, _MESSAGES = OpenAIResponses(), AnthropicMessages()
_BY_OBJECT: Mapping[str, Provider] = {
    "chat.completion": _CHAT,
    "chat.completion.chunk": _CHAT,
    "text_completion": _COMPLETIONS,
    "list": _EMBEDDINGS,
    "response": _RESPONSES,
}
_ANTHROPIC_EVENTS = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    }
)


@dataclass(frozen=True, slots=True)
class FoundUsage:
    usage: UsageMetrics
    #: The answer ended before its usage was said in full; this is what is known, and an estimate of the rest.
    estimated: bool = False


def usage_in_result(result: object, *, model: str | None) -> FoundUsage | None:
    """The usage of one answer, `None` if it holds none that is usable.

    It is priced as `model`, the one that was asked for, else as the model that the answer names.
    """
    if isinstance(result, UsageMetrics):
        return FoundUsage(result)
    body = result if isinstance(result, Mapping) else _fields_of(result)
    if isinstance(body.get("usage"), UsageMetrics):
        return FoundUsage(body["usage"])
    plain = {name: _plain(body[name], MAX_DEPTH) for name in _FIELDS if body.get(name) is not None}
    provider = _provider_of(plain)
    if provider is None:
        return None
    reading = provider.usage_from_body(plain, request=CallRequest(model=model))
    return _found(reading, model=model, stream=False)


class StreamUsage:
    """Takes the items of a stream one by one, and says what they used, finished or not."""

    def __init__(self, *, model: str | None) -> None:
        self._model = model
        self._reader: StreamReader | None = None
        self._stated: UsageMetrics | None = None

    def take(self, item: object) -> None:
        """Read one item; what is no chunk or event of a known provider is passed over."""
        if isinstance(item, UsageMetrics):
            self._stated = item
            return
        if isinstance(item, str | bytes | int | float) or item is None:
            return
        body = _plain(item, MAX_DEPTH)
        if not isinstance(body, dict):
            return
        if self._reader is None:
            provider = _stream_provider_of(body)
            if provider is None:
                return
            self._reader = provider.stream_reader(request=CallRequest(model=self._model, stream=True))
        self._reader.feed(SSEEvent(raw=b"", data=json.dumps(body, default=str).encode()))

    def found(self) -> FoundUsage | None:
        """The usage so far, `None` if nothing is known of it."""
        if self._stated is not None:
            return FoundUsage(self._stated)
        if self._reader is None:
            return None
        return _found(self._reader.reading(), model=self._model, stream=True)


def _found(reading: UsageReading, *, model: str | None, stream: bool) -> FoundUsage | None:
    if reading.usage is None:
        return None
    usage = reading.usage
    if not reading.final:
        request = CallRequest(model=model, stream=stream)
        usage = estimate_usage(request, delivered_bytes=reading.delivered_bytes, known=reading)
    if usage.model is None and reading.model is not None:
        usage = usage.model_copy(update={"model": reading.model})
    return FoundUsage(usage, estimated=not reading.final)


def _provider_of(body: Mapping[str, Any]) -> Provider | None:
    kind = body.get("object")
    if isinstance(kind, str) and kind in _BY_OBJECT:
        return _BY_OBJECT[kind]
    if body.get("type") == "message":
        return _MESSAGES
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    if "prompt_tokens" in usage:
        return _CHAT
    if "input_tokens" not in usage:
        return None
    return _RESPONSES if "input_tokens_details" in usage or "output" in body else _MESSAGES


def _stream_provider_of(body: Mapping[str, Any]) -> Provider | None:
    kind = body.get("type")
    if isinstance(kind, str):
        if kind in _ANTHROPIC_EVENTS:
            return _MESSAGES
        if kind.startswith("response."):
            return _RESPONSES
    found = body.get("object")
    if found == "text_completion":
        return _COMPLETIONS
    return _CHAT if found == "chat.completion.chunk" or isinstance(body.get("choices"), list) else None


def _fields_of(result: object) -> dict[str, Any]:
    return {name: value for name in _FIELDS if (value := getattr(result, name, None)) is not None}


def _plain(value: object, depth: int) -> Any:
    """`value` as JSON-like dicts and lists; an object becomes its fields, and what is too deep becomes null."""
    if value is None or isinstance(value, str | int | float | UsageMetrics):
        return value
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, depth - 1) for one in value]
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        # Providers send values that their SDK's types do not foresee; that is no reason for a warning here.
        return _plain(dump(warnings=False), depth - 1)
    fields = getattr(value, "__dict__", None)
    return _plain(fields, depth - 1) if isinstance(fields, dict) else None
