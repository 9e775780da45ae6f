"""OpenAI's Responses API.

Usage comes with the finished response: in the plain answer, or in the stream's terminal event
(`response.completed`, `.incomplete` or `.failed`) and nowhere before. Tools that the provider runs are
counted apart from the tokens, under `tool_usage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ducto.errors import ArgumentError
from ducto.middleware.providers.base import (
    CallRequest,
    Dialect,
    Provider,
    StreamReader,
    UnboundedInput,
    UsageReading,
    checked_limit,
    served_tier,
)
from ducto.middleware.providers.jsontext import load_object, text_bytes
from ducto.middleware.providers.numbers import FieldReader, Problems, object_at, request_count, text_at
from ducto.middleware.providers.openai_usage import split_input, split_output, usage_in_tail
from ducto.middleware.providers.requests import as_object, read_flag, read_media, read_model, read_text
from ducto.middleware.sse import SSEEvent
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["OpenAIResponses"]

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
#: Tools that the caller runs; every other kind is run by the provider.
_CLIENT_TOOLS = frozenset(
    {"function", "custom", "local_shell", "computer", "computer_use_preview", "apply_patch", "namespace"}
)
_STORED_CONTEXT = ("previous_response_id", "conversation", "prompt")
#: Fields of the output items that hold what the model wrote.
_ITEM_TEXTS = ("content", "summary", "arguments", "input", "code")


class OpenAIResponses(Provider):
    """`/v1/responses`. A call in the background is refused: its answer does not say what it will cost."""

    name: ClassVar[str] = "openai.responses"
    dialect: ClassVar[Dialect] = "openai"
    smallest_output_limit: ClassVar[int] = 16

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        if read_flag(fields, "background"):
            raise ArgumentError(
                "'background': true cannot be metered, because the answer comes without its usage; "
                "send the request without it, streamed if it takes long.",
                field="background",
            )
        media = read_media(fields.get("input"))
        unbounded: set[UnboundedInput] = set(media.unbounded)
        if any(fields.get(name) is not None for name in _STORED_CONTEXT):
            unbounded.add("stored_context")
        if _has_hosted_tools(fields.get("tools")):
            unbounded.add("hosted_tools")
        return CallRequest(
            model=read_model(fields),
            stream=read_flag(fields, "stream"),
            output_limit=request_count(fields, "max_output_tokens"),
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            service_tier=read_text(fields, "service_tier"),
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        limit = checked_limit(tokens)
        given = request_count(body, "max_output_tokens")
        return {**body, "max_output_tokens": limit if given is None else min(given, limit)}

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        problems = Problems()
        if not isinstance(body, dict):
            problems.add("the answer is no JSON object")
            return UsageReading(problems=problems.as_tuple())
        return _reading(body, request=request, problems=problems, delivered_bytes=_output_bytes(body))

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _ResponsesStream(request=request)


class _ResponsesStream(StreamReader):
    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._response: Mapping[str, Any] = {}
        self._model: str | None = None

    def feed(self, event: SSEEvent) -> bool:
        data = event.data
        if not data or data.startswith(b"[DONE]"):
            return False
        if event.truncated:
            self._feed_truncated(event)
            return False
        body = load_object(data)
        if body is None:
            self.problems.add("an event of the stream is no JSON object")
            return False
        kind = body.get("type")
        if not isinstance(kind, str):
            self.failed = self.failed or bool(body.get("error"))
        elif kind.endswith(".delta"):
            # Sound comes in base64 and its transcript beside it; the transcript is what is counted.
            if kind != "response.audio.delta":
                self.delivered_bytes += text_bytes(body.get("delta"))
        elif kind in _TERMINAL:
            self._end(kind, object_at(body, "response"))
        elif kind == "error":
            self.failed = True
        elif kind == "response.created":
            self._model = text_at(object_at(body, "response"), "model")
        return False

    def reading(self) -> UsageReading:
        problems = Problems()
        reading = _reading(
            self._response, request=self.request, problems=problems, delivered_bytes=self.delivered_bytes
        )
        return UsageReading(
            usage=reading.usage,
            final=reading.final,
            explicit_zero=reading.explicit_zero,
            problems=(*self.problems.as_tuple(), *problems.as_tuple()),
            model=reading.model or self._model,
            service_tier=reading.service_tier,
            delivered_bytes=self.delivered_bytes,
        )

    def _end(self, kind: str, response: Mapping[str, Any]) -> None:
        self.finished = True
        self.failed = self.failed or kind == "response.failed"
        self._response = response

    def _feed_truncated(self, event: SSEEvent) -> None:
        """The terminal event repeats the whole answer, so a long answer makes it large: its end has the
        usage.
        """
        head = event.data[:512].decode("utf-8", "replace")
        kind = next((kind for kind in _TERMINAL if event.event == kind or f'"{kind}"' in head), None)
        if kind is None:
            if ".delta" in (event.event or head):
                self.delivered_bytes += event.size
            return
        usage = usage_in_tail(event.tail, name="usage", totals=("input_tokens", "output_tokens"))
        tools = usage_in_tail(event.tail, name="tool_usage", totals=())
        tail = event.tail.decode("utf-8", "replace")
        tier = next((t for t in ("priority", "flex") if f'"service_tier":"{t}"' in tail), None)
        self._end(kind, {"usage": usage, "tool_usage": tools, "service_tier": tier})


def _reading(
    response: Mapping[str, Any], *, request: CallRequest, problems: Problems, delivered_bytes: int
) -> UsageReading:
    tier = text_at(response, "service_tier")
    usage = _read_usage(response, request=request, tier=tier, problems=problems)
    return UsageReading(
        usage=usage,
        final=usage is not None,
        explicit_zero=usage is not None and _is_zero(usage),
        problems=problems.as_tuple(),
        model=text_at(response, "model"),
        service_tier=tier,
        delivered_bytes=delivered_bytes,
    )


def _read_usage(
    response: Mapping[str, Any], *, request: CallRequest, tier: str | None, problems: Problems
) -> UsageMetrics | None:
    usage = response.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        problems.add("usage is no object and was rejected")
        return None
    fields = FieldReader(usage, path="usage", problems=problems)
    total_in, total_out = fields.count("input_tokens"), fields.count("output_tokens")
    if total_in is None or total_out is None:
        problems.add("usage lacks input_tokens or output_tokens")
        return None
    total = fields.count("total_tokens") or 0
    read = split_input(total_in, fields.nested("input_tokens_details"), problems=problems)
    written = split_output(max(total_out, total - total_in), fields.nested("output_tokens_details"), problems=problems)
    tools = FieldReader(object_at(response, "tool_usage"), path="tool_usage", problems=problems)
    images = tools.nested("image_gen")
    kinds = _items_by_kind(response)
    searches = tools.nested("web_search").count("num_requests")
    return UsageMetrics(
        model=request.model,
        # The image tool's tokens are not in `usage`; its input is text and images together.
        input_tokens=min(MAX_AMOUNT, read.fresh + images.part("input_tokens")),
        cache_read_tokens=read.cached,
        cache_write_tokens=read.written,
        input_audio_tokens=read.audio,
        input_image_tokens=read.image,
        output_tokens=written.text,
        reasoning_tokens=written.reasoning,
        output_audio_tokens=written.audio,
        output_image_tokens=min(MAX_AMOUNT, written.image + images.part("output_tokens")),
        web_search_calls=searches if searches is not None else kinds.get("web_search_call", 0),
        search_queries=kinds.get("file_search_call", 0),
        code_exec_calls=kinds.get("code_interpreter_call", 0),
        service_tier=served_tier(tier, request=request),
    )


def _is_zero(usage: UsageMetrics) -> bool:
    tools = usage.web_search_calls + usage.search_queries + usage.code_exec_calls
    return usage.total_input_tokens + usage.total_output_tokens + tools == 0


def _items_by_kind(response: Mapping[str, Any]) -> dict[str, int]:
    """How many items of each kind the output has. Opening a page is a web search item, but no search."""
    kinds: dict[str, int] = {}
    for item in _output(response):
        kind = item.get("type")
        if isinstance(kind, str) and object_at(item, "action").get("type", "search") == "search":
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def _output(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    output = response.get("output")
    return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []


def _output_bytes(response: Mapping[str, Any]) -> int:
    size = 0
    for item in _output(response):
        for name in _ITEM_TEXTS:
            value = item.get(name)
            parts = value if isinstance(value, list) else [value]
            for part in parts:
                size += _part_bytes(part)
    return size


def _part_bytes(part: object) -> int:
    if isinstance(part, dict):
        return text_bytes(part.get("text")) + text_bytes(part.get("refusal"))
    return text_bytes(part)


def _has_hosted_tools(tools: object) -> bool:
    if not isinstance(tools, list):
        return False
    return any(isinstance(tool, dict) and tool.get("type") not in _CLIENT_TOOLS for tool in tools)
