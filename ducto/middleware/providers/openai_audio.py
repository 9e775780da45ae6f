"""OpenAI's sound: speech made of text, and text made of recordings.

Speech is answered with sound alone, which says nothing about its usage: its characters are known from the request,
its tokens are estimated. A recording is charged by the tokens or the seconds that the answer tells; answers in plain
text or as subtitles tell neither, and are estimated by the size of the recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, ClassVar, Protocol

from ducto.errors import ArgumentError
from ducto.middleware.providers.base import CallRequest, Dialect, Provider, StreamReader, UsageReading
from ducto.middleware.providers.estimate import bound_text_tokens, typical_text_tokens
from ducto.middleware.providers.forms import FormProvider, file_sizes
from ducto.middleware.providers.jsontext import load_object, text_bytes
from ducto.middleware.providers.numbers import FieldReader, Problems, capped, object_at, text_at
from ducto.middleware.providers.requests import as_object, read_flag, read_model, read_text
from ducto.middleware.providers.splitting import split_input
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["OpenAISpeech", "OpenAITranscriptions", "OpenAITranslations"]

#: A token of sound is 50 ms of it or more.
AUDIO_TOKENS_PER_SECOND = 20
#: UTF-8 bytes of text that a voice speaks in a second: usually, and at its slowest (pauses, instructions to be slow).
SPOKEN_BYTES_PER_SECOND = 15
SLOWEST_BYTES_PER_SECOND = 5
SLOWEST_SPEED = Decimal("0.25")
#: Bytes of one second of a recording: as voice messages usually have, and at 6 kbit/s, the least of Opus (RFC 6716,
#: section 2.1.1).
RECORDED_BYTES_PER_SECOND = 2_000
THINNEST_BYTES_PER_SECOND = 750
#: Tokens of text for a second of a recording: fast speech, and usual speech.
FASTEST_TEXT_TOKENS_PER_SECOND = 10
TEXT_TOKENS_PER_SECOND = 3


class _Read(Protocol):
    """Reads the usage that an answer tells, `None` if it tells none."""

    def __call__(self, body: Mapping[str, Any], *, request: CallRequest, problems: Problems) -> UsageMetrics | None: ...


class OpenAISpeech(Provider):
    """`/v1/audio/speech`."""

    name: ClassVar[str] = "openai.speech"
    dialect: ClassVar[Dialect] = "openai"

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        model, text = read_model(fields), read_text(fields, "input") or ""
        size, whole = text_bytes(text), text_bytes(text) + text_bytes(read_text(fields, "instructions"))
        speed = _speed(fields)

        def usage(text_tokens: int, bytes_per_second: int) -> UsageMetrics:
            seconds = size / (bytes_per_second * speed)
            return UsageMetrics(
                model=model,
                input_tokens=text_tokens,
                output_audio_tokens=capped(int((seconds * AUDIO_TOKENS_PER_SECOND).to_integral_value(ROUND_CEILING))),
                input_characters=len(text),
            )

        return CallRequest(
            model=model,
            stream=fields.get("stream_format") == "sse",
            output_limit=0,
            input_bytes=whole,
            worst_case=usage(bound_text_tokens(whole), SLOWEST_BYTES_PER_SECOND),
            typical=usage(typical_text_tokens(whole), SPOKEN_BYTES_PER_SECOND),
        )

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        return _reading(body, request=request, read=_spoken, delivered_bytes=0)

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _SoundStream(request=request, read=_spoken)


class OpenAITranscriptions(FormProvider):
    """`/v1/audio/transcriptions`."""

    name: ClassVar[str] = "openai.transcriptions"
    dialect: ClassVar[Dialect] = "openai"
    accepts_json: ClassVar[bool] = False

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        model, prompt = read_model(fields), text_bytes(read_text(fields, "prompt"))
        size = sum(file_sizes(fields, "file"))

        def usage(text_tokens: int, bytes_per_second: int, spoken_per_second: int) -> UsageMetrics:
            milliseconds = -(-size * 1000 // bytes_per_second)
            return UsageMetrics(
                model=model,
                input_tokens=text_tokens,
                input_audio_tokens=capped(-(-milliseconds * AUDIO_TOKENS_PER_SECOND // 1000)),
                output_tokens=capped(-(-milliseconds * spoken_per_second // 1000)),
                audio_milliseconds=capped(milliseconds),
            )

        return CallRequest(
            model=model,
            stream=read_flag(fields, "stream"),
            output_limit=0,
            input_bytes=prompt,
            unbounded_input=frozenset({"audio"}),
            worst_case=usage(bound_text_tokens(prompt), THINNEST_BYTES_PER_SECOND, FASTEST_TEXT_TOKENS_PER_SECOND),
            typical=usage(typical_text_tokens(prompt), RECORDED_BYTES_PER_SECOND, TEXT_TOKENS_PER_SECOND),
        )

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        return _reading(body, request=request, read=_recorded, delivered_bytes=text_bytes(body.get("text")))

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _SoundStream(request=request, read=_recorded)


class OpenAITranslations(OpenAITranscriptions):
    """`/v1/audio/translations`: a transcription into English."""

    name: ClassVar[str] = "openai.translations"


class _SoundStream(StreamReader):
    """`speech.audio.done` or `transcript.text.done` ends the stream and has the usage."""

    def __init__(self, *, request: CallRequest, read: _Read) -> None:
        super().__init__(request=request)
        self._read = read
        self._last: Mapping[str, Any] = {}

    def feed(self, event: SSEEvent) -> bool:
        if not event.data or event.data.startswith(b"[DONE]"):
            return False
        if event.truncated:
            if b"audio.delta" not in event.data[:512]:
                self.problems.add("an event of the stream was too large to be read whole")
            return False
        body = load_object(event.data)
        if body is None:
            self.problems.add("an event of the stream is no JSON object")
            return False
        kind = text_at(body, "type") or ""
        if kind == "transcript.text.delta":
            self.delivered_bytes += text_bytes(body.get("delta"))
        elif kind in ("transcript.text.done", "speech.audio.done"):
            self.finished = True
            self._last = body
        elif kind == "error" or body.get("error"):
            self.failed = True
        return False

    def reading(self) -> UsageReading:
        found = _reading(self._last, request=self.request, read=self._read, delivered_bytes=self.delivered_bytes)
        return UsageReading(
            usage=found.usage,
            final=found.final,
            explicit_zero=found.explicit_zero,
            problems=(*self.problems.as_tuple(), *found.problems),
            delivered_bytes=found.delivered_bytes,
        )


def _reading(body: Mapping[str, Any], *, request: CallRequest, read: _Read, delivered_bytes: int) -> UsageReading:
    problems = Problems()
    usage = read(body, request=request, problems=problems)
    used = 0
    if usage is not None:
        used = usage.total_input_tokens + usage.total_output_tokens + usage.audio_milliseconds
    return UsageReading(
        usage=usage,
        final=usage is not None,
        explicit_zero=usage is not None and used == 0,
        problems=problems.as_tuple(),
        delivered_bytes=delivered_bytes,
    )


def _spoken(body: Mapping[str, Any], *, request: CallRequest, problems: Problems) -> UsageMetrics | None:
    fields = FieldReader(object_at(body, "usage"), path="usage", problems=problems)
    given, made = fields.count("input_tokens"), fields.count("output_tokens")
    if given is None or made is None:
        return None
    return UsageMetrics(
        model=request.model,
        input_tokens=given,
        output_audio_tokens=made,
        input_characters=0 if request.typical is None else request.typical.input_characters,
    )


def _recorded(body: Mapping[str, Any], *, request: CallRequest, problems: Problems) -> UsageMetrics | None:
    """By the tokens that are told, else by the seconds; a detailed answer has those at its top."""
    told = object_at(body, "usage")
    fields = FieldReader(told, path="usage", problems=problems)
    given, made = fields.count("input_tokens"), fields.count("output_tokens")
    if given is not None and made is not None:
        details = fields.nested("input_token_details")
        sound = details.count("audio_tokens")
        if sound is None:
            sound = max(0, given - details.part("text_tokens"))
        split = split_input(given, audio=sound, problems=problems)
        return UsageMetrics(
            model=request.model, input_tokens=split.fresh, input_audio_tokens=split.audio, output_tokens=made
        )
    if fields.rejected:
        return None
    milliseconds = fields.milliseconds("seconds")
    if milliseconds is None and not fields.rejected:
        milliseconds = FieldReader(body, path="answer", problems=problems).milliseconds("duration")
    return None if milliseconds is None else UsageMetrics(model=request.model, audio_milliseconds=milliseconds)


def _speed(fields: Mapping[str, Any]) -> Decimal:
    """How many times faster than usual; the slowest that there is, for a lower one."""
    value = fields.get("speed")
    if value is None:
        return Decimal(1)
    if type(value) not in (int, float) or not 0 < value <= 100:
        raise ArgumentError("'speed' must be a number above 0.", field="speed")
    return max(SLOWEST_SPEED, Decimal(str(value)))
