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
from ducto.middleware.providers.numbers import (
    FieldReader,
    Problems,
    capped,
    object_at,
    objects_in,
    request_count,
    text_at,
)
from ducto.middleware.providers.openai_images import read_image_tokens
from ducto.middleware.providers.openai_usage import read_input, read_output, usage_in_tail
from ducto.middleware.providers.requests import as_object, read_flag, read_media, read_model, read_text
from ducto.middleware.providers.tool_calls import MAX_TOOL_CALLS, ToolCalls
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["OpenAIResponses"]

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
#: Tools that the caller runs; every other kind is run by the provider.
_CLIENT_TOOLS = frozenset(
    {"function", "custom", "local_shell", "computer", "computer_use_preview", "apply_patch", "namespace"}
)
#: Items that have the name of what they call; any other is called by its kind.
_NAMED_CALLS = frozenset({"function_call", "custom_tool_call", "mcp_call"})
_STORED_CONTEXT = ("previous_response_id", "conversation", "prompt")
#: Fields of the output items that hold what the model wrote.
_ITEM_TEXTS = ("content", "summary", "arguments", "input", "code")


class OpenAIResponses(Provider):
    """`/v1/responses`.

    A call in the background is refused: it is answered at once, without its usage, and goes on after the hold has
    ended; nobody has to fetch what it made, so there is no moment at which it would surely be charged.
    """

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
        tools = _tool_kinds(fields.get("tools"))
        if not tools <= _CLIENT_TOOLS:
            unbounded.add("hosted_tools")
        most_calls = min(MAX_TOOL_CALLS, request_count(fields, "max_tool_calls") or 0)
        return CallRequest(
            model=read_model(fields),
            stream=read_flag(fields, "stream"),
            output_limit=request_count(fields, "max_output_tokens"),
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            service_tier=read_text(fields, "service_tier"),
            output_images=max(1, most_calls) if "image_generation" in tools else 0,
            web_searches=most_calls if any(kind.startswith("web_search") for kind in tools) else 0,
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
        #: What each item of the output is, for a terminal event that is too large to have them.
        self._items: list[dict[str, Any]] = []
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
        elif kind == "response.output_item.done":
            item = object_at(body, "item")
            if len(self._items) < MAX_TOOL_CALLS:
                self._items.append({name: item.get(name) for name in ("type", "name", "action")})
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
        self._end(kind, {"usage": usage, "tool_usage": tools, "service_tier": tier, "output": self._items})


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
    read = read_input(total_in, fields.nested("input_tokens_details"), problems=problems)
    written = read_output(max(total_out, total - total_in), fields.nested("output_tokens_details"), problems=problems)
    tools = FieldReader(object_at(response, "tool_usage"), path="tool_usage", problems=problems)
    # The image tool's tokens are not in `usage`.
    told = read_image_tokens(tools.nested("image_gen")) or (0, 0, 0, 0)
    image_text, image_in, image_text_out, image_out = told
    ran = _RanTools(response, searches=tools.nested("web_search").count("num_requests"))
    metrics = UsageMetrics(
        model=request.model,
        input_tokens=capped(read.fresh + image_text),
        cache_read_tokens=read.cached,
        cache_write_tokens=read.written,
        cache_write_1h_tokens=read.written_long,
        input_audio_tokens=read.audio,
        input_image_tokens=capped(read.image + image_in),
        output_tokens=capped(written.text + image_text_out),
        reasoning_tokens=written.reasoning,
        output_audio_tokens=written.audio,
        output_image_tokens=capped(written.image + image_out),
        web_search_calls=ran.web_searches,
        search_queries=ran.file_searches,
        code_exec_calls=ran.code_runs,
        service_tier=served_tier(tier, request=request),
    )
    return ran.calls.within(metrics)


def _is_zero(usage: UsageMetrics) -> bool:
    tools = usage.web_search_calls + usage.search_queries + usage.code_exec_calls
    return usage.total_input_tokens + usage.total_output_tokens + tools == 0


class _RanTools:
    """What the items of the output say about tools. `searches` is how many web searches were billed, if that is told;
    else they are counted, and opening a page is no search.
    """

    def __init__(self, response: Mapping[str, Any], *, searches: int | None) -> None:
        self.calls = ToolCalls()
        found: dict[str, int] = {}
        for item in objects_in(response.get("output")):
            kind = text_at(item, "type") or ""
            found[kind] = found.get(kind, 0) + (object_at(item, "action").get("type", "search") == "search")
            if kind in _NAMED_CALLS:
                self.calls.add(item)
            elif kind.endswith("_call") and kind != "web_search_call":
                self.calls.add_named(kind.removesuffix("_call"))
        self.web_searches = found.get("web_search_call", 0) if searches is None else searches
        self.file_searches = found.get("file_search_call", 0)
        self.code_runs = found.get("code_interpreter_call", 0)
        self.calls.add_named("web_search", times=self.web_searches)


def _output_bytes(response: Mapping[str, Any]) -> int:
    size = 0
    for item in objects_in(response.get("output")):
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


def _tool_kinds(tools: object) -> set[str]:
    if not isinstance(tools, list):
        return set()
    return {str(tool.get("type")) for tool in tools if isinstance(tool, dict)}
