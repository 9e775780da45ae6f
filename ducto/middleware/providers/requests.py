"""Reading the fields of a request that every format has in the same way, and the media in its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ducto.errors import ArgumentError
from ducto.middleware.providers.base import UnboundedInput

__all__ = ["Media", "as_object", "read_flag", "read_media", "read_model", "read_text"]

#: A part of a content may itself have parts (the result of a tool); deeper ones are counted as text.
MAX_PART_DEPTH = 4

_IMAGE_TYPES = frozenset({"image_url", "input_image", "image"})
_AUDIO_TYPES = frozenset({"input_audio", "audio"})
_FILE_TYPES = frozenset({"file", "input_file", "document", "container_upload"})


def as_object(body: object) -> dict[str, Any]:
    """`body` as a JSON object. Raises `ArgumentError` if it is something else."""
    if not isinstance(body, dict):
        raise ArgumentError('The request body must be a JSON object, as in {"model": ...}.')
    return body


def read_model(body: Mapping[str, Any]) -> str | None:
    """The model's name. Raises `ArgumentError` for one that is no text, or empty."""
    model = read_text(body, "model")
    if model == "":
        raise ArgumentError("'model' is empty; name the model to call.", field="model")
    return model


def read_text(body: Mapping[str, Any], name: str) -> str | None:
    """The text `name`, `None` if absent or null. Raises `ArgumentError` for another type."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ArgumentError(f"'{name}' must be a string.", field=name)
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """The flag `name`, false if absent or null. Raises `ArgumentError` for another type."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ArgumentError(f"'{name}' must be true or false.", field=name)
    return value


@dataclass(slots=True)
class Media:
    """What the input holds besides text."""

    images: int = 0
    #: Bytes of image data within the body: an image costs by its size in pixels, not by its bytes.
    image_bytes: int = 0
    unbounded: set[UnboundedInput] = field(default_factory=set)


def read_media(messages: object) -> Media:
    """The media in the parts of `messages` (a list of messages or of input items).

    Only places that a provider reads as content are looked at: text that is dressed up as an image elsewhere,
    say in a tool's schema, stays counted as text.
    """
    media = Media()
    for message in messages if isinstance(messages, list) else ():
        # Mostly the content is a text, which holds no parts.
        if isinstance(message, dict) and (isinstance(message.get("content"), list) or "output" in message):
            for part in _parts(message, depth=MAX_PART_DEPTH):
                _note(part, media)
    return media


def _parts(holder: Mapping[str, Any], *, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        return
    for name in ("content", "output"):
        parts = holder.get(name)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield part
                yield from _parts(part, depth=depth - 1)


def _note(part: Mapping[str, Any], media: Media) -> None:
    kind = part.get("type")
    if not isinstance(kind, str):
        return
    if kind in _IMAGE_TYPES:
        media.images += 1
        media.image_bytes += _image_data_bytes(part)
    elif kind in _AUDIO_TYPES:
        media.unbounded.add("audio")
    elif kind in _FILE_TYPES and _is_remote(part):
        media.unbounded.add("remote_file")


def _image_data_bytes(part: Mapping[str, Any]) -> int:
    address = part.get("image_url")
    if isinstance(address, dict):
        address = address.get("url")
    if isinstance(address, str):
        return len(address) if address.startswith("data:image/") and address.isascii() else 0
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") == "base64":
        data = source.get("data")
        return len(data) if isinstance(data, str) and data.isascii() else 0
    return 0


def _is_remote(part: Mapping[str, Any]) -> bool:
    places = [part, *(part[name] for name in ("file", "source") if isinstance(part.get(name), dict))]
    return any(name in place for place in places for name in ("file_id", "file_url", "url"))
