"""Amazon Bedrock's Converse API, plain and as a stream.

The path names the model. Counts are *not* nested: the cache's tokens are beside `inputTokens`. A stream is AWS's binary
event stream; its last event, `metadata`, has the usage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from ducto.errors import ArgumentError
from ducto.middleware.providers.aws_event_stream import DAMAGED, EXCEPTION, MEDIA_TYPE, AWSEventStreamParser
from ducto.middleware.providers.base import (
    CacheWrite,
    CallRequest,
    Dialect,
    Provider,
    StreamParser,
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
from ducto.middleware.providers.openai_usage import usage_in_tail
from ducto.middleware.providers.requests import Media, as_object
from ducto.middleware.providers.splitting import split_writes
from ducto.middleware.providers.tool_calls import ToolCalls
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["BedrockConverse"]

MAX_DETAILS = 100
_BLOCK_DEPTH = 3
_TOTALS = ("inputTokens", "outputTokens")
#: Names under which models take an output limit of their own, beside the one of Converse.
_OTHER_LIMITS = frozenset(
    {"max_tokens", "maxTokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample"}
    | {"max_gen_len", "maxTokenCount"}
)


class BedrockConverse(Provider):
    """`/model/{model}/converse`, and with `stream` `/model/{model}/converse-stream`."""

    name: ClassVar[str] = "bedrock.converse"
    dialect: ClassVar[Dialect] = "bedrock"

    def __init__(self, *, stream: bool = False, model: str | None = None) -> None:
        self._stream = stream
        self._model = model

    def bind(self, *, model: str | None, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        return type(self)(stream=self._stream, model=model)

    def stream_parser(self, media_type: str, *, request: CallRequest) -> StreamParser | None:
        return AWSEventStreamParser() if media_type == MEDIA_TYPE else None

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        own = fields.get("additionalModelRequestFields")
        if isinstance(own, dict) and not _OTHER_LIMITS.isdisjoint(own):
            raise ArgumentError(
                "An output limit in 'additionalModelRequestFields' cannot be metered; set 'inferenceConfig.maxTokens'.",
                field="additionalModelRequestFields",
            )
        blocks = list(_request_blocks(fields))
        media = _media(blocks)
        unbounded: set[UnboundedInput] = set(media.unbounded)
        if any(isinstance(block.get("systemTool"), dict) for block in blocks):
            unbounded.add("hosted_tools")
        if fields.get("promptVariables") is not None:
            unbounded.add("stored_context")
        return CallRequest(
            model=self._model,
            stream=self._stream,
            output_limit=request_count(_config(fields), "maxTokens", minimum=1),
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            cache_write=_cache_write(blocks),
            service_tier=text_at(object_at(fields, "serviceTier"), "type"),
            speed=_speed(fields),
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        limit = checked_limit(tokens)
        config = _config(body)
        given = request_count(config, "maxTokens")
        return {**body, "inferenceConfig": {**config, "maxTokens": limit if given is None else min(given, limit)}}

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        calls = ToolCalls()
        size = 0
        for block in objects_in(object_at(object_at(body, "output"), "message").get("content")):
            calls.add(object_at(block, "toolUse"))
            size += _written_bytes(block)
        return _reading(body, request=request, calls=calls, problems=Problems(), delivered_bytes=size)

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _ConverseStream(request=request)


class _ConverseStream(StreamReader):
    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._calls = ToolCalls()
        self._metadata: Mapping[str, Any] = {}

    def feed(self, event: SSEEvent) -> bool:
        if event.event == DAMAGED:
            self.problems.add("a message of the stream is damaged")
        elif event.event == EXCEPTION:
            self.failed = True
        elif event.truncated:
            self._feed_truncated(event)
        elif event.data:
            body = load_object(event.data)
            if body is None:
                self.problems.add("an event of the stream is no JSON object")
            else:
                self._take(event.event, body)
        return False

    def reading(self) -> UsageReading:
        problems = Problems()
        for problem in self.problems.as_tuple():
            problems.add(problem)
        return _reading(
            self._metadata,
            request=self.request,
            calls=self._calls,
            problems=problems,
            delivered_bytes=self.delivered_bytes,
        )

    def _take(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "contentBlockDelta":
            self.delivered_bytes += _written_bytes(object_at(body, "delta"))
        elif kind == "contentBlockStart":
            self._calls.add(object_at(object_at(body, "start"), "toolUse"))
        elif kind == "metadata":
            self.finished = True
            self._metadata = body

    def _feed_truncated(self, event: SSEEvent) -> None:
        if event.event != "metadata":
            self.problems.add("an event of the stream was too large to be read whole")
            return
        pieces = (event.tail, event.data)
        usage = next((found for one in pieces if (found := usage_in_tail(one, name="usage", totals=_TOTALS))), None)
        self._take("metadata", {"usage": usage})


def _reading(
    body: Mapping[str, Any], *, request: CallRequest, calls: ToolCalls, problems: Problems, delivered_bytes: int
) -> UsageReading:
    tier = text_at(object_at(body, "serviceTier"), "type")
    usage = _read_usage(body.get("usage"), request=request, tier=tier, speed=_speed(body), problems=problems)
    used = 0 if usage is None else usage.total_input_tokens + usage.total_output_tokens
    return UsageReading(
        usage=None if usage is None else calls.within(usage),
        final=usage is not None,
        explicit_zero=usage is not None and used == 0,
        problems=problems.as_tuple(),
        service_tier=tier,
        delivered_bytes=delivered_bytes,
    )


def _read_usage(
    usage: object, *, request: CallRequest, tier: str | None, speed: str | None, problems: Problems
) -> UsageMetrics | None:
    if usage is None:
        return None
    if not isinstance(usage, dict):
        problems.add("usage is no object and was rejected")
        return None
    fields = FieldReader(usage, path="usage", problems=problems)
    fresh, written = fields.count("inputTokens"), fields.count("outputTokens")
    cached, stored = fields.part("cacheReadInputTokens"), fields.part("cacheWriteInputTokens")
    if fresh is None or written is None or fields.rejected:
        problems.add("usage lacks inputTokens or outputTokens, or has unusable counts")
        return None
    total = fields.part("totalTokens")
    short, long = _writes(usage.get("cacheDetails"), stored, problems)
    return UsageMetrics(
        model=request.model,
        input_tokens=fresh,
        cache_read_tokens=cached,
        cache_write_tokens=short,
        cache_write_1h_tokens=long,
        # What the total has beyond the parts was written.
        output_tokens=max(written, total - fresh - cached - stored),
        service_tier=served_tier(tier, request=request),
        speed=speed or request.speed,
    )


def _writes(details: object, total: int, problems: Problems) -> tuple[int, int]:
    lifetimes = {"5m": 0, "1h": 0}
    unclear = False
    for entry in objects_in(details)[:MAX_DETAILS]:
        fields = FieldReader(entry, path="usage.cacheDetails[]", problems=problems)
        lifetime = entry.get("ttl")
        count = fields.part("inputTokens")
        unclear = unclear or bool(fields.rejected) or lifetime not in ("5m", "1h")
        if lifetime == "5m" or lifetime == "1h":
            lifetimes[lifetime] = capped(lifetimes[lifetime] + count)
    return split_writes(total, short=lifetimes["5m"], long=lifetimes["1h"], unclear=unclear, problems=problems)


def _config(fields: Mapping[str, Any]) -> dict[str, Any]:
    config = fields.get("inferenceConfig")
    if config is not None and not isinstance(config, dict):
        raise ArgumentError("'inferenceConfig' must be an object.", field="inferenceConfig")
    return config or {}


def _speed(fields: Mapping[str, Any]) -> str | None:
    """`optimized` for the latency that costs more."""
    latency = text_at(object_at(fields, "performanceConfig"), "latency")
    return latency if latency == "optimized" else None


def _request_blocks(fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every content block of the request, those in the results of tools too, and the tools."""
    for message in objects_in(fields.get("messages")):
        yield from _blocks(message.get("content"), depth=_BLOCK_DEPTH)
    yield from objects_in(fields.get("system"))
    yield from objects_in(object_at(fields, "toolConfig").get("tools"))


def _blocks(content: object, *, depth: int) -> Iterator[dict[str, Any]]:
    for block in objects_in(content) if depth else ():
        yield block
        yield from _blocks(object_at(block, "toolResult").get("content"), depth=depth - 1)


def _media(blocks: Iterable[Mapping[str, Any]]) -> Media:
    media = Media()
    for block in blocks:
        for kind in ("image", "document", "video", "audio"):
            holder = block.get(kind)
            if not isinstance(holder, dict):
                continue
            source = object_at(holder, "source")
            if kind == "image":
                data = source.get("bytes")
                media.images += 1
                media.image_bytes += len(data) if isinstance(data, str) and data.isascii() else 0
            elif kind in ("video", "audio"):
                media.unbounded.add("audio")
            if "s3Location" in source:
                media.unbounded.add("remote_file")
    return media


def _cache_write(blocks: Iterable[Mapping[str, Any]]) -> CacheWrite | None:
    points = [point for block in blocks if isinstance(point := block.get("cachePoint"), dict)]
    if not points:
        return None
    return "1h" if any(point.get("ttl") == "1h" for point in points) else "5m"


def _written_bytes(block: Mapping[str, Any]) -> int:
    """Text in a content block, or in a piece of one."""
    reasoning = object_at(block, "reasoningContent")
    return (
        text_bytes(block.get("text"))
        + text_bytes(object_at(block, "toolUse").get("input"))
        + text_bytes(reasoning.get("text"))
        + text_bytes(object_at(reasoning, "reasoningText").get("text"))
    )
