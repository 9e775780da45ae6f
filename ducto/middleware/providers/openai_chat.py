"""OpenAI's chat completions and legacy completions, and the many servers that speak them.

Totals include their details: `prompt_tokens` the cached, `completion_tokens` the reasoning tokens. A stream
carries usage only if it was asked to (`stream_options.include_usage`): in one extra chunk with empty
`choices`, after the chunk with the `finish_reason`. Some servers put it on the last choice chunk, or a
running total on every chunk; so the last valid one counts.
"""

from __future__ import annotations

import re
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
from ducto.middleware.providers.numbers import FieldReader, Problems, object_at, objects_in, request_count, text_at
from ducto.middleware.providers.openai_usage import read_input, read_output, usage_in_tail
from ducto.middleware.providers.requests import (
    as_object,
    read_flag,
    read_media,
    read_model,
    read_text,
)
from ducto.middleware.providers.tool_calls import ToolCalls
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["OpenAIChat", "OpenAICompletions"]

_DELTA_TEXTS = ("content", "refusal", "tool_calls", "function_call")
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_MORE_THAN_TEXT = ("tool_calls", "function_call", "audio")
#: What `include_usage` adds to every chunk but the last. A quote within a string is escaped, so it cannot match.
_NULL_USAGE = re.compile(rb'"usage"[ \t]*:[ \t]*null')


class _CompletionsFormat(Provider):
    """What the two routes share: the answers, and how a stream is asked for its usage."""

    dialect: ClassVar[Dialect] = "openai"

    def ask_for_usage(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if body.get("stream") is not True or _usage_requested(body):
            return None
        options = body.get("stream_options")
        return {**body, "stream_options": {**(options or {}), "include_usage": True}}

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        problems = Problems()
        if not isinstance(body, dict):
            problems.add("the answer is no JSON object")
            return UsageReading(problems=problems.as_tuple())
        tier = text_at(body, "service_tier")
        usage = _read_usage(body.get("usage"), request=request, tier=tier, problems=problems)
        calls = ToolCalls()
        delivered_bytes = 0
        for choice in objects_in(body.get("choices")):
            _note_calls(choice, "message", calls)
            delivered_bytes += _choice_bytes(choice, "message")
        return UsageReading(
            usage=None if usage is None else calls.within(usage),
            final=usage is not None,
            explicit_zero=_is_zero(usage),
            problems=problems.as_tuple(),
            model=text_at(body, "model"),
            service_tier=tier,
            delivered_bytes=delivered_bytes,
        )

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _CompletionsStream(request=request)


class OpenAIChat(_CompletionsFormat):
    """`/v1/chat/completions`."""

    name: ClassVar[str] = "openai.chat"

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        limits = [request_count(fields, name) for name in ("max_completion_tokens", "max_tokens")]
        media = read_media(fields.get("messages"))
        unbounded: set[UnboundedInput] = set(media.unbounded)
        choices = request_count(fields, "n", minimum=1) or 1
        searches = fields.get("web_search_options") is not None
        if searches:
            unbounded.add("hosted_tools")
        modalities = fields.get("modalities")
        if isinstance(modalities, list) and "audio" in modalities:
            unbounded.add("audio")
        return CallRequest(
            model=read_model(fields),
            stream=read_flag(fields, "stream"),
            usage_requested=_usage_requested(fields),
            output_limit=max((limit for limit in limits if limit is not None), default=None),
            choices=choices,
            input_bytes=max(0, body_bytes - media.image_bytes),
            images=media.images,
            unbounded_input=frozenset(unbounded),
            service_tier=read_text(fields, "service_tier"),
            output_images=choices if isinstance(modalities, list) and "image" in modalities else 0,
            # A model that takes these options searches once for each call, and the answer does not count it.
            web_searches=1 if searches else 0,
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        return _limited(body, tokens=tokens, names=("max_completion_tokens", "max_tokens"))


class OpenAICompletions(_CompletionsFormat):
    """`/v1/completions`: each of several prompts is answered `n` times, and `best_of` candidates are paid
    for.
    """

    name: ClassVar[str] = "openai.completions"

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        candidates = max(request_count(fields, "n", minimum=1) or 1, request_count(fields, "best_of", minimum=1) or 1)
        return CallRequest(
            model=read_model(fields),
            stream=read_flag(fields, "stream"),
            usage_requested=_usage_requested(fields),
            output_limit=request_count(fields, "max_tokens"),
            choices=candidates * _prompt_count(fields.get("prompt")),
            input_bytes=body_bytes,
            service_tier=read_text(fields, "service_tier"),
        )

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        return _limited(body, tokens=tokens, names=("max_tokens",))


class _CompletionsStream(StreamReader):
    """Keeps the last valid usage, wherever it comes."""

    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._usage: UsageMetrics | None = None
        self._calls = ToolCalls()
        self._final = False
        self._ended_choice = False
        self._model: str | None = None
        self._tier: str | None = None

    def feed(self, event: SSEEvent) -> bool:
        data = event.data
        if not data:
            return False
        if data.startswith(b"[DONE]"):
            self.finished = True
            return False
        if event.truncated:
            self._feed_truncated(event)
            return False
        body = load_object(data)
        if body is None:
            self.problems.add("an event of the stream is no JSON object")
            return False
        if body.get("error"):
            self.failed = True
        choices = body.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self.delivered_bytes += _choice_bytes(choice, "delta")
                    _note_calls(choice, "delta", self._calls)
                    self._ended_choice = self._ended_choice or choice.get("finish_reason") is not None
        if self._model is None:
            self._model = text_at(body, "model")
        if "service_tier" in body:
            tier = text_at(body, "service_tier") or self._tier
            if tier != self._tier:
                # Events that were learned before would say otherwise.
                self._tier, self._repeated = tier, None
        usage = body.get("usage")
        if usage is None:
            raw = event.raw
            if "usage" in body and not self.request.usage_requested:
                event.raw = _without_null_usage(raw)
            text = _only_text(choices)
            if text is not None and not self.failed:
                self._learn(raw, text, shown=event.raw)
            return False
        self._take(usage, final=choices == [] or self._ended_choice)
        return choices == []

    def reading(self) -> UsageReading:
        return UsageReading(
            usage=None if self._usage is None else self._calls.within(self._usage),
            final=self._usage is not None and (self._final or self.finished),
            explicit_zero=_is_zero(self._usage) and (self._final or self.finished),
            problems=self.problems.as_tuple(),
            model=self._model,
            service_tier=self._tier,
            delivered_bytes=self.delivered_bytes,
        )

    def _take(self, usage: object, *, final: bool) -> None:
        read = _read_usage(usage, request=self.request, tier=self._tier, problems=self.problems)
        if read is not None:
            self._usage = read
            self._final = final

    def _feed_truncated(self, event: SSEEvent) -> None:
        self.problems.add("an event of the stream was too large to be read whole")
        self.delivered_bytes += event.size
        usage = usage_in_tail(event.tail, name="usage", totals=("prompt_tokens", "completion_tokens"))
        if usage is not None:
            self._take(usage, final=self._ended_choice)


def _read_usage(usage: object, *, request: CallRequest, tier: str | None, problems: Problems) -> UsageMetrics | None:
    if usage is None:
        return None
    if not isinstance(usage, dict):
        problems.add("usage is no object and was rejected")
        return None
    fields = FieldReader(usage, path="usage", problems=problems)
    totals = _totals(fields, problems=problems)
    if totals is None:
        return None
    read = read_input(totals[0], fields.nested("prompt_tokens_details"), problems=problems)
    written = read_output(totals[1], fields.nested("completion_tokens_details"), problems=problems)
    # OpenAI does not say; LiteLLM's proxy does, as Anthropic does.
    searches = fields.nested("server_tool_use").count("web_search_requests")
    return UsageMetrics(
        model=request.model,
        input_tokens=read.fresh,
        cache_read_tokens=read.cached,
        cache_write_tokens=read.written,
        cache_write_1h_tokens=read.written_long,
        input_audio_tokens=read.audio,
        input_image_tokens=read.image,
        output_tokens=written.text,
        reasoning_tokens=written.reasoning,
        output_audio_tokens=written.audio,
        output_image_tokens=written.image,
        web_search_calls=request.web_searches if searches is None else searches,
        service_tier=served_tier(tier, request=request),
    )


def _totals(fields: FieldReader, *, problems: Problems) -> tuple[int, int] | None:
    """`(prompt, completion)`; `None` if they cannot be known.

    Servers have been seen whose `completion_tokens` lacks the reasoning that `total_tokens` has, so the
    output is at least the difference. A total that was *rejected* is never derived from the others.
    """
    prompt, completion = fields.count("prompt_tokens"), fields.count("completion_tokens")
    total = fields.count("total_tokens")
    if fields.rejected & {"prompt_tokens", "completion_tokens"}:
        return None
    if prompt is None and completion is not None and total is not None and total >= completion:
        prompt = total - completion
    if prompt is None or (completion is None and (total is None or total < prompt)):
        problems.add("usage lacks prompt_tokens or completion_tokens")
        return None
    return prompt, max(completion or 0, (total or 0) - prompt)


def _is_zero(usage: UsageMetrics | None) -> bool:
    return usage is not None and usage.total_input_tokens == 0 and usage.total_output_tokens == 0


def _usage_requested(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise ArgumentError("'stream_options' must be an object.", field="stream_options")
    return read_flag(options, "include_usage") and body.get("stream") is True


def _limited(body: dict[str, Any], *, tokens: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Lower each limit that `body` has; if it has none, set the first of `names`."""
    limit = checked_limit(tokens)
    given = {name: value for name in names if (value := request_count(body, name)) is not None}
    if not given:
        return {**body, names[0]: limit}
    return {**body, **{name: min(value, limit) for name, value in given.items()}}


def _prompt_count(prompt: object) -> int:
    """A list of texts or of token lists is as many prompts; a list of tokens is one."""
    if not isinstance(prompt, list):
        return 1
    return max(1, sum(1 for item in prompt if isinstance(item, str | list)))


def _choice_bytes(choice: Mapping[str, Any], holder: str) -> int:
    """Text in one choice: in its `message` or `delta` (chat), or in its `text` (completions)."""
    message = choice.get(holder)
    if not isinstance(message, dict):
        return text_bytes(choice.get("text"))
    size = 0
    for name in _DELTA_TEXTS:
        value = message.get(name)
        if value is not None:
            size += text_bytes(value)
    # Servers name the reasoning text differently, and some send it under both names.
    if "reasoning_content" in message or "reasoning" in message:
        size += max(text_bytes(message.get("reasoning_content")), text_bytes(message.get("reasoning")))
    audio = message.get("audio")
    return size + (text_bytes(audio.get("transcript")) if isinstance(audio, dict) else 0)


def _only_text(choices: object) -> str | None:
    """The text that an event with these choices delivers, if it does nothing else."""
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice: dict[str, Any] = choices[0]
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = choice.get("text")
        return text if isinstance(text, str) else None
    if any(delta.get(name) for name in _MORE_THAN_TEXT):
        return None
    texts = [text for name in _TEXTS if (text := delta.get(name))]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None


def _note_calls(choice: Mapping[str, Any], holder: str, calls: ToolCalls) -> None:
    """The functions that one choice calls. In a stream the name comes once, some servers repeat it."""
    message = choice.get(holder)
    if not isinstance(message, dict) or ("tool_calls" not in message and "function_call" not in message):
        return
    place = _number(choice.get("index"))
    for number, tool in enumerate(objects_in(message.get("tool_calls"))):
        index = _number(tool.get("index"))
        # In a plain answer, and with some servers, calls come whole and have ids instead of an index.
        key = (number, text_at(tool, "id")) if index is None else index
        for kind in ("function", "custom"):
            calls.add_once((place, key), object_at(tool, kind))
    calls.add_once((place, "function_call"), object_at(message, "function_call"))


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _without_null_usage(raw: bytes) -> bytes:
    """An event as it would be had nobody asked for the usage; unchanged where that is not certain."""
    found = list(_NULL_USAGE.finditer(raw))
    if len(found) != 1:
        return raw
    # One comma goes with it: the one before, or at the start of the object the one after.
    before, after = raw[: found[0].start()].rstrip(b" \t"), raw[found[0].end() :]
    if before.endswith(b","):
        return before[:-1] + after
    after = after.lstrip(b" \t")
    return before + after[1:].lstrip(b" \t") if after.startswith(b",") else raw
