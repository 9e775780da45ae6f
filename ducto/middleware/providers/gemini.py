"""Gemini's own API: `generateContent` and `streamGenerateContent`.

The path names the model. Totals include their parts: the cached tokens are in `promptTokenCount`; what tools brought in
is counted beside it. The thoughts are in `candidatesTokenCount` or beside it, which the total tells. A count that is
missing is 0, as JSON of Protocol Buffers leaves zeros out. A stream repeats the usage with each chunk, as a running
total; its chunks are server-sent events (`alt=sse`) or the elements of one JSON array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from ducto.middleware.providers.base import (
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
from ducto.middleware.providers.gemini_request import config_of, either, generation_config, named_model, read_parts
from ducto.middleware.providers.json_array import JSONArrayParser
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
from ducto.middleware.providers.requests import as_object
from ducto.middleware.providers.splitting import split_input, split_output
from ducto.middleware.providers.tool_calls import ToolCalls
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["GeminiGenerate"]

MAX_DETAILS = 100


class GeminiGenerate(Provider):
    """`/v1beta/models/{model}:generateContent`, and with `stream` `:streamGenerateContent`."""

    dialect: ClassVar[Dialect] = "gemini"
    name: ClassVar[str] = "gemini.generate"

    def __init__(self, *, stream: bool = False, model: str | None = None) -> None:
        self._stream = stream
        self._model = model

    def bind(self, *, model: str | None, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        return type(self)(stream=self._stream, model=model)

    def stream_parser(self, media_type: str, *, request: CallRequest) -> StreamParser | None:
        if request.stream and media_type == "application/json":
            return JSONArrayParser()
        return super().stream_parser(media_type, request=request)

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        config = generation_config(fields)
        media = read_parts(fields)
        unbounded: set[UnboundedInput] = set(media.unbounded)
        if either(fields, "cachedContent", "cached_content") is not None:
            unbounded.add("stored_context")
        tools = fields.get("tools")
        names = (
            {name for tool in tools if isinstance(tool, dict) for name in tool} if isinstance(tools, list) else set()
        )
        if names - {"functionDeclarations", "function_declarations"}:
            unbounded.add("hosted_tools")
        made = either(config, "responseModalities", "response_modalities")
        modalities = {str(one).upper() for one in made} if isinstance(made, list) else set()
        if "AUDIO" in modalities:
            unbounded.add("audio")
        choices = request_count(config, config_of(config, "candidateCount", "candidate_count"), minimum=1) or 1
        return CallRequest(
            model=named_model(fields, self._model),
            stream=self._stream,
            output_limit=request_count(config, config_of(config, "maxOutputTokens", "max_output_tokens")),
            choices=choices,
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            output_images=choices if "IMAGE" in modalities else 0,
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        limit = checked_limit(tokens)
        config = generation_config(body)
        name = config_of(config, "maxOutputTokens", "max_output_tokens")
        given = request_count(config, name)
        place = config_of(body, "generationConfig", "generation_config")
        return {**body, place: {**config, name: limit if given is None else min(given, limit)}}

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        answer = _Answer(request)
        answer.take(body)
        return answer.reading(ended=True)

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _GeminiStream(request=request)


class _GeminiStream(StreamReader):
    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._answer = _Answer(request, problems=self.problems)

    def feed(self, event: SSEEvent) -> bool:
        if not event.data:
            return False
        if event.truncated:
            self.problems.add("an event of the stream was too large to be read whole")
            usage = usage_in_tail(event.tail, name="usageMetadata", totals=("promptTokenCount",))
            # What makes an event large is an image, the base64 of which is no text.
            self._answer.take({"usageMetadata": usage, "candidates": _ended_candidates(event.tail)})
        else:
            body = load_object(event.data)
            if body is None:
                self.problems.add("an event of the stream is no JSON object")
                return False
            self.failed = self.failed or bool(body.get("error"))
            self._answer.take(body)
        self.delivered_bytes = self._answer.delivered_bytes
        self.finished = self._answer.ended
        return False

    def reading(self) -> UsageReading:
        return self._answer.reading(ended=self._answer.ended)


class _Answer:
    """What one answer says, in one body or in the chunks of a stream."""

    def __init__(self, request: CallRequest, *, problems: Problems | None = None) -> None:
        self._request = request
        self._problems = problems or Problems()
        self._usage: Mapping[str, Any] | None = None
        self._model: str | None = None
        self._calls = ToolCalls()
        self._queries = 0
        self._code_runs = 0
        self._read_pages = False
        self._finished: set[int] = set()
        self._blocked = False
        self.delivered_bytes = 0

    @property
    def ended(self) -> bool:
        """Every candidate has a reason why it ended, or the prompt was blocked."""
        return self._blocked or len(self._finished) >= self._request.choices

    def take(self, body: Mapping[str, Any]) -> None:
        usage = body.get("usageMetadata")
        if isinstance(usage, dict):
            self._usage = usage
        elif usage is not None:
            self._problems.add("usageMetadata is no object and was rejected")
        self._model = text_at(body, "modelVersion") or self._model
        self._blocked = self._blocked or text_at(object_at(body, "promptFeedback"), "blockReason") is not None
        for candidate in objects_in(body.get("candidates")):
            self._take_candidate(candidate)

    def _take_candidate(self, candidate: Mapping[str, Any]) -> None:
        if text_at(candidate, "finishReason") is not None:
            index = candidate.get("index")
            self._finished.add(index if type(index) is int else 0)
        # Both repeat in a stream what was found before.
        queries = object_at(candidate, "groundingMetadata").get("webSearchQueries")
        self._queries = max(self._queries, len(queries) if isinstance(queries, list) else 0)
        self._read_pages = self._read_pages or isinstance(candidate.get("urlContextMetadata"), dict)
        for part in objects_in(object_at(candidate, "content").get("parts")):
            call, code = object_at(part, "functionCall"), object_at(part, "executableCode")
            self._calls.add(call)
            self._code_runs += bool(code)
            self.delivered_bytes += (
                text_bytes(part.get("text")) + text_bytes(call.get("args")) + text_bytes(code.get("code"))
            )

    def reading(self, *, ended: bool) -> UsageReading:
        problems = Problems()
        usage = None if self._usage is None else self._metrics(self._usage, problems)
        zero = usage is not None and not (usage.total_input_tokens or usage.total_output_tokens)
        final = usage is not None and ended
        return UsageReading(
            usage=usage,
            final=final,
            explicit_zero=final and zero,
            problems=(*self._problems.as_tuple(), *problems.as_tuple()),
            model=self._model,
            service_tier=None if self._usage is None else _tier(self._usage),
            delivered_bytes=self.delivered_bytes,
        )

    def _metrics(self, usage: Mapping[str, Any], problems: Problems) -> UsageMetrics | None:
        fields = FieldReader(usage, path="usageMetadata", problems=problems)
        counts = _Counts.read(fields)
        if counts is None:
            problems.add("usageMetadata lacks promptTokenCount and totalTokenCount, or they are unusable")
            return None
        # What a search brought in is paid with the search; what was read or computed is input.
        from_tools = counts.tools if self._read_pages or self._code_runs or not self._queries else 0
        given = dict(_modalities(usage.get("promptTokensDetails"), problems))
        made = dict(_modalities(usage.get("candidatesTokensDetails"), problems))
        read = split_input(
            capped(counts.prompt + from_tools),
            cached=counts.cached,
            audio=given.get("AUDIO", 0),
            image=given.get("IMAGE", 0),
            problems=problems,
        )
        written = split_output(
            capped(counts.output),
            reasoning=counts.thoughts,
            audio=made.get("AUDIO", 0),
            image=made.get("IMAGE", 0),
            problems=problems,
        )
        calls = self._calls.copy()
        calls.add_named("google_search", times=bool(self._queries))
        calls.add_named("code_execution", times=self._code_runs)
        return calls.within(
            UsageMetrics(
                model=self._request.model,
                input_tokens=read.fresh,
                cache_read_tokens=read.cached,
                input_audio_tokens=read.audio,
                input_image_tokens=read.image,
                output_tokens=written.text,
                reasoning_tokens=written.reasoning,
                output_audio_tokens=written.audio,
                output_image_tokens=written.image,
                # A call that searched is one; how often it did is the queries.
                web_search_calls=min(1, self._queries),
                search_queries=self._queries,
                code_exec_calls=self._code_runs,
                service_tier=served_tier(_tier(usage), request=self._request),
            )
        )


class _Counts:
    """The totals of one usage object."""

    __slots__ = ("cached", "output", "prompt", "thoughts", "tools")

    def __init__(self, *, prompt: int, cached: int, tools: int, thoughts: int, output: int) -> None:
        self.prompt = prompt
        self.cached = cached
        self.tools = tools
        self.thoughts = thoughts
        self.output = output

    @classmethod
    def read(cls, fields: FieldReader) -> _Counts | None:
        """`None` if they say neither the input nor the total, or have a total that was rejected."""
        prompt, total = fields.count("promptTokenCount"), fields.count("totalTokenCount")
        candidates, thoughts = fields.part("candidatesTokenCount"), fields.part("thoughtsTokenCount")
        tools, cached = fields.part("toolUsePromptTokenCount"), fields.part("cachedContentTokenCount")
        if fields.rejected - {"cachedContentTokenCount"} or (prompt is None and total is None):
            return None
        output = candidates + thoughts
        if prompt is None:
            prompt = max(0, (total or 0) - output - tools)
        if thoughts <= candidates and total == prompt + candidates + tools:
            output = candidates
        elif total is not None:
            # Totals have been seen that hold more than the parts; what no part names was written.
            output = max(output, total - prompt - tools)
        return cls(prompt=prompt, cached=cached, tools=tools, thoughts=thoughts, output=output)


def _modalities(details: object, problems: Problems) -> Iterator[tuple[str, int]]:
    for entry in objects_in(details)[:MAX_DETAILS]:
        count = FieldReader(entry, path="usageMetadata.details[]", problems=problems).part("tokenCount")
        yield str(entry.get("modality")), count


def _tier(usage: Mapping[str, Any]) -> str | None:
    tier = text_at(usage, "serviceTier")
    return None if tier is None else tier.lower()


def _ended_candidates(tail: bytes) -> list[dict[str, Any]]:
    return [{"finishReason": "STOP"}] if b'"finishReason"' in tail else []
