"""Anthropic's Messages API.

Its counts are *not* nested: the whole input is `input_tokens` + cache reads + cache writes; only the thinking
tokens are part of `output_tokens`. In a stream `message_start` has the input and a first output count, and
`message_delta` running totals: they are merged by overwriting, never by adding. Iterations of the type
`compaction` are in no total and are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ducto.middleware.providers.base import (
    CacheWrite,
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
from ducto.middleware.providers.numbers import FieldReader, Problems, capped, object_at, request_count, text_at
from ducto.middleware.providers.requests import as_object, read_flag, read_media, read_model, read_text
from ducto.middleware.providers.splitting import split_writes
from ducto.middleware.providers.tool_calls import ToolCalls
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["AnthropicMessages"]

#: Thinking needs a budget of at least this many tokens, and less than the output limit.
MIN_THINKING_TOKENS = 1024
MAX_ITERATIONS = 1000
#: How deep the request is searched for cache marks.
MAX_MARK_DEPTH = 8
#: Anthropic bounds a search tool by `max_uses`; a bound above this is none.
MAX_SEARCHES = 100

_SERVER_TOOLS = ("web_search", "web_fetch", "code_execution", "tool_search", "advisor", "mcp")
_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DELTA_TEXTS = ("text", "thinking", "partial_json", "content")
_BLOCK_TEXTS = ("text", "thinking", "data", "input", "content")
_CALL_BLOCKS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
#: Blocks that the model wrote; the results of server tools come between them, and are input.
_WRITTEN_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "compaction", *_CALL_BLOCKS})


class AnthropicMessages(Provider):
    """`/v1/messages`."""

    name: ClassVar[str] = "anthropic.messages"
    dialect: ClassVar[Dialect] = "anthropic"

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        media = read_media(fields.get("messages"))
        unbounded: set[UnboundedInput] = set(media.unbounded)
        if _has_server_tools(fields):
            unbounded.add("hosted_tools")
        return CallRequest(
            model=read_model(fields),
            stream=read_flag(fields, "stream"),
            output_limit=request_count(fields, "max_tokens"),
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            cache_write=_cache_write(fields),
            service_tier=read_text(fields, "service_tier"),
            speed=read_text(fields, "speed"),
            web_searches=_web_searches(fields),
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        """As the interface says; a thinking budget is lowered with it.

        Where no valid budget is left under the limit, thinking is switched off.
        """
        limit = checked_limit(tokens)
        given = request_count(body, "max_tokens")
        limit = limit if given is None else min(given, limit)
        limited = {**body, "max_tokens": limit}
        thinking = body.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") == "enabled":
            budget = request_count(thinking, "budget_tokens")
            if limit <= MIN_THINKING_TOKENS:
                limited["thinking"] = {"type": "disabled"}
            elif budget is not None and budget >= limit:
                limited["thinking"] = {**thinking, "budget_tokens": limit - 1}
        return limited

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        merged = _MergedUsage(Problems())
        merged.overwrite(body.get("usage"))
        content = body.get("content")
        blocks = content if isinstance(content, list) else []
        for block in blocks:
            merged.note_block(block)
        return merged.reading(
            request=request,
            ended=True,
            model=text_at(body, "model"),
            delivered_bytes=sum(_block_bytes(block) for block in blocks),
        )

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _MessagesStream(request=request)


class _MessagesStream(StreamReader):
    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._merged = _MergedUsage(self.problems)
        self._ended = False
        self._model: str | None = None

    def feed(self, event: SSEEvent) -> bool:
        data = event.data
        if not data:
            return False
        if event.truncated:
            self.problems.add("an event of the stream was too large to be read whole")
            if b"_delta" in data[:512]:
                self.delivered_bytes += event.size
            return False
        body = load_object(data)
        if body is None:
            self.problems.add("an event of the stream is no JSON object")
            return False
        kind = body.get("type")
        if kind == "content_block_delta":
            delta = object_at(body, "delta")
            texts = [value for name in _DELTA_TEXTS if (value := delta.get(name))]
            self.delivered_bytes += sum(map(text_bytes, texts))
            if len(texts) == 1 and isinstance(texts[0], str):
                self._learn(event.raw, texts[0], shown=event.raw)
        elif kind == "message_delta":
            self._merged.overwrite(body.get("usage"))
            self._ended = self._ended or text_at(object_at(body, "delta"), "stop_reason") is not None
        elif kind == "message_start":
            message = object_at(body, "message")
            self._model = text_at(message, "model")
            self._merged.overwrite(message.get("usage"))
        elif kind == "content_block_start":
            self.delivered_bytes += _block_bytes(body.get("content_block"))
            self._merged.note_block(body.get("content_block"))
        elif kind == "message_stop":
            self.finished = True
        elif kind == "error":
            self.failed = True
        return False

    def reading(self) -> UsageReading:
        return self._merged.reading(
            request=self.request,
            ended=self._ended or self.finished,
            model=self._model,
            delivered_bytes=self.delivered_bytes,
        )


class _MergedUsage:
    """The usage of one message, merged from the objects that say something about it."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._counts: dict[str, int] = {}
        self._short_writes: int | None = None
        self._long_writes: int | None = None
        self._lifetime_unclear = False
        self._thinking = 0
        self._searches = 0
        self._code_runs = 0
        self._extra: dict[str, int] = {}
        self._tier: str | None = None
        self._speed: str | None = None
        self._unusable: set[str] = set()
        self._calls = ToolCalls()
        self._code_blocks = 0

    def note_block(self, block: object) -> None:
        """Take the tool that a content block calls. Searches are counted in the usage: a failed one is not billed."""
        if not isinstance(block, dict):
            return
        kind, name = block.get("type"), text_at(block, "name")
        if kind == "server_tool_use" and name == "web_search":
            return
        if kind in _CALL_BLOCKS:
            self._calls.add(block)
        if kind == "server_tool_use" and name is not None and name.endswith("code_execution"):
            self._code_blocks += 1

    def overwrite(self, usage: object) -> None:
        """Take what `usage` says over what was said before; a rejected field leaves it, and is remembered."""
        if usage is None:
            return
        if not isinstance(usage, dict):
            self._problems.add("usage is no object and was rejected")
            self._unusable.add("usage")
            return
        fields = FieldReader(usage, path="usage", problems=self._problems)
        for name in (*_INPUT_COUNTS, "output_tokens"):
            self._take(name, fields.count(name), rejected=name in fields.rejected)
        self._take_writes(fields.nested("cache_creation"))
        self._thinking = max(self._thinking, fields.nested("output_tokens_details").part("thinking_tokens"))
        tools = fields.nested("server_tool_use")
        self._searches = max(self._searches, tools.part("web_search_requests"))
        self._code_runs = max(self._code_runs, tools.part("code_execution_requests"))
        iterations = usage.get("iterations")
        if isinstance(iterations, list):
            self._extra = self._compactions(iterations)
        self._tier = text_at(usage, "service_tier") or self._tier
        self._speed = text_at(usage, "speed") or self._speed

    def reading(self, *, request: CallRequest, ended: bool, model: str | None, delivered_bytes: int) -> UsageReading:
        usage = self._metrics(request)
        if usage is not None:
            usage = self._with_calls(usage)
        final = usage is not None and ended and not self._unusable
        zero = usage is not None and not (
            usage.total_input_tokens or usage.total_output_tokens or usage.web_search_calls
        )
        return UsageReading(
            usage=usage,
            final=final,
            explicit_zero=final and zero,
            problems=self._problems.as_tuple(),
            model=model,
            service_tier=self._tier,
            delivered_bytes=delivered_bytes,
        )

    def _take(self, name: str, count: int | None, *, rejected: bool) -> None:
        if rejected:
            self._unusable.add(name)
        elif count is not None:
            # Translating servers repeat the input of the start as 0 at the end: running totals do not fall to
            # 0.
            if count == 0 and name in _INPUT_COUNTS and self._counts.get(name):
                return
            self._counts[name] = count
            self._unusable.discard(name)

    def _take_writes(self, split: FieldReader) -> None:
        short, long = split.count("ephemeral_5m_input_tokens"), split.count("ephemeral_1h_input_tokens")
        self._short_writes = short if short is not None else self._short_writes
        self._long_writes = long if long is not None else self._long_writes
        self._lifetime_unclear = self._lifetime_unclear or bool(split.rejected)

    def _compactions(self, iterations: list[Any]) -> dict[str, int]:
        extra: dict[str, int] = {}
        for entry in iterations[:MAX_ITERATIONS]:
            if isinstance(entry, dict) and entry.get("type") == "compaction":
                fields = FieldReader(entry, path="usage.iterations[]", problems=self._problems)
                for name in (*_INPUT_COUNTS, "output_tokens"):
                    extra[name] = capped(extra.get(name, 0) + fields.part(name))
                    if fields.rejected:
                        self._unusable.add("iterations")
        return extra

    def _metrics(self, request: CallRequest) -> UsageMetrics | None:
        if not {"input_tokens", "output_tokens"} <= self._counts.keys():
            return None
        count = {
            name: capped(self._counts.get(name, 0) + self._extra.get(name, 0))
            for name in (*_INPUT_COUNTS, "output_tokens")
        }
        short, long = split_writes(
            count["cache_creation_input_tokens"],
            short=self._short_writes or 0,
            long=self._long_writes or 0,
            unclear=self._lifetime_unclear,
            problems=self._problems,
        )
        output = count["output_tokens"]
        if self._thinking > output:
            self._problems.add("more thinking than output tokens; the larger is charged")
        return UsageMetrics(
            model=request.model,
            input_tokens=count["input_tokens"],
            cache_read_tokens=count["cache_read_input_tokens"],
            cache_write_tokens=short,
            cache_write_1h_tokens=long,
            output_tokens=max(0, output - self._thinking),
            reasoning_tokens=self._thinking,
            web_search_calls=self._searches,
            code_exec_calls=max(self._code_runs, self._code_blocks),
            service_tier=served_tier(self._tier, request=request),
            speed=self._speed or request.speed,
        )

    def _with_calls(self, usage: UsageMetrics) -> UsageMetrics:
        calls = self._calls.copy()
        calls.add_named("web_search", times=self._searches)
        return calls.within(usage)


def _block_bytes(block: object) -> int:
    if not isinstance(block, dict) or block.get("type") not in _WRITTEN_BLOCKS:
        return 0
    return sum(text_bytes(block.get(name)) for name in _BLOCK_TEXTS)


def _has_server_tools(body: Mapping[str, Any]) -> bool:
    if body.get("mcp_servers"):
        return True
    tools = body.get("tools")
    kinds = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return any(isinstance(kind, str) and kind.startswith(_SERVER_TOOLS) for kind in kinds)


def _web_searches(body: Mapping[str, Any]) -> int:
    """The searches that the request allows, where it bounds them."""
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and str(tool.get("type")).startswith("web_search"):
            return min(MAX_SEARCHES, request_count(tool, "max_uses") or 0)
    return 0


def _cache_write(body: Mapping[str, Any]) -> CacheWrite | None:
    """The longest lifetime that any cache mark of the request asks for."""
    lifetimes: set[CacheWrite] = set()
    for name in ("cache_control", "system", "tools", "messages"):
        _collect_marks(name, body.get(name), lifetimes, depth=MAX_MARK_DEPTH)
    return max(lifetimes, key=("5m", "1h").index, default=None)


def _collect_marks(name: str, value: object, lifetimes: set[CacheWrite], *, depth: int) -> None:
    if depth == 0:
        return
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                _collect_marks("", item, lifetimes, depth=depth - 1)
    elif isinstance(value, dict):
        if name == "cache_control":
            lifetimes.add("1h" if value.get("ttl") == "1h" else "5m")
            return
        for key, item in value.items():
            if isinstance(item, dict | list):
                _collect_marks(key, item, lifetimes, depth=depth - 1)
