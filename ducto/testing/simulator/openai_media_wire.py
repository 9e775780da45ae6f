"""Answers of OpenAI's routes for images and sound."""

from __future__ import annotations

import base64
import email
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import AUDIO_TOKENS_PER_SECOND, IMAGE_TOKENS, Reply, recording_reply, reply_to
from ducto.testing.simulator.wire import Event, JSONWire

__all__ = ["ImagesWire", "SpeechWire", "TranscriptionWire"]

#: A file of a form is kept as its size, under its field's name and this.
_SIZE_OF = "size_bytes:"


class ImagesWire(JSONWire):
    """Images: `IMAGE_TOKENS` of output for each. Models whose name begins with `dall-e` tell no usage."""

    def read(self, raw: bytes, content_type: str) -> Any:
        return _form(raw, content_type) if content_type.startswith("multipart/") else super().read(raw, content_type)

    def reply(self, body: Mapping[str, Any], fault: Fault, *, model: str | None) -> Reply:
        reply = reply_to(body, fault, model=model)
        return replace(reply, output_tokens=IMAGE_TOKENS * reply.choices)

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        image = {"b64_json": base64.b64encode(reply.text.encode()).decode()}
        made = {"created": 1_767_225_600, "data": [image] * reply.choices}
        usage = _told(_image_usage(reply.input_tokens, reply.output_tokens), fault)
        return made if usage is None or reply.model.startswith("dall-e") else {**made, "usage": usage}

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        image = base64.b64encode(reply.text.encode()).decode()
        for number in range(reply.choices):
            partial = {"type": "image_generation.partial_image", "b64_json": image, "partial_image_index": 0}
            yield "image_generation.partial_image", partial
            # The prompt is counted with the first image.
            usage = _told(_image_usage(0 if number else reply.input_tokens, IMAGE_TOKENS), fault)
            whole: dict[str, Any] = {"type": "image_generation.completed", "b64_json": image, "size": "1024x1024"}
            yield "image_generation.completed", whole if usage is None else {**whole, "usage": usage}


class SpeechWire(JSONWire):
    """Speech: a thousand bytes of sound for each chunk, as `audio/mpeg`, or as events that end with the usage."""

    def streams(self, body: Mapping[str, Any]) -> bool:
        return body.get("stream_format") == "sse"

    def plain(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> tuple[str, bytes]:
        return "audio/mpeg", b"\xff\xfb\x90\x00" * 250 * len(reply.pieces)

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        return {}

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        for piece in reply.pieces:
            yield None, {"type": "speech.audio.delta", "audio": base64.b64encode(piece.encode()).decode()}
        usage = _told(_totals(reply.input_tokens, reply.output_tokens), fault)
        end: dict[str, Any] = {"type": "speech.audio.done"}
        yield None, end if usage is None else {**end, "usage": usage}


class TranscriptionWire(JSONWire):
    """Transcriptions and translations: by seconds for models whose name begins with `whisper`, else by tokens."""

    def read(self, raw: bytes, content_type: str) -> Any:
        return _form(raw, content_type)

    def reply(self, body: Mapping[str, Any], fault: Fault, *, model: str | None) -> Reply:
        return recording_reply(body, fault, size_bytes=body.get(_SIZE_OF + "file", 0))

    def streams(self, body: Mapping[str, Any]) -> bool:
        return body.get("stream") == "true"

    def plain(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> tuple[str, bytes]:
        if body.get("response_format") in ("text", "srt", "vtt"):
            return "text/plain", reply.text.encode()
        return super().plain(body, reply, fault)

    def made(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
        made: dict[str, Any] = {"text": reply.text}
        if body.get("response_format") == "verbose_json":
            made = {**made, "language": "english", "duration": reply.seconds}
        usage = _told(_recording_usage(reply), fault)
        return made if usage is None else {**made, "usage": usage}

    def events(self, body: Mapping[str, Any], reply: Reply, fault: Fault) -> Iterator[Event]:
        for piece in reply.pieces:
            yield None, {"type": "transcript.text.delta", "delta": piece}
        usage = _told(_recording_usage(reply), fault)
        end: dict[str, Any] = {"type": "transcript.text.done", "text": reply.text}
        yield None, end if usage is None else {**end, "usage": usage}


def _told(usage: dict[str, Any], fault: Fault) -> dict[str, Any] | None:
    if fault.usage == "missing":
        return None
    if fault.usage == "zero":
        usage = {name: 0 if isinstance(value, int | float) else value for name, value in usage.items()}
    return {**usage, **(fault.usage_fields or {})}


def _totals(given: int, made: int) -> dict[str, Any]:
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}


def _image_usage(given: int, made: int) -> dict[str, Any]:
    return {**_totals(given, made), "input_tokens_details": {"text_tokens": given, "image_tokens": 0}}


def _recording_usage(reply: Reply) -> dict[str, Any]:
    if reply.model.startswith("whisper"):
        return {"type": "duration", "seconds": reply.seconds}
    details = {"audio_tokens": reply.input_tokens, "text_tokens": 0}
    assert reply.input_tokens >= int(reply.seconds * AUDIO_TOKENS_PER_SECOND)
    return {"type": "tokens", **_totals(reply.input_tokens, reply.output_tokens), "input_token_details": details}


def _form(raw: bytes, content_type: str) -> dict[str, Any] | None:
    """The fields of a form by the standard library's reader, which is not the one under test."""
    message = email.message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + raw)
    fields: dict[str, Any] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            continue
        if part.get_filename() is not None:
            fields[_SIZE_OF + name] = len(content)
        elif name == "n":
            fields[name] = json.loads(content)
        else:
            fields[name] = content.decode()
    return fields or None
