"""Reading a request to Gemini, whose JSON takes each name in camelCase and in snake_case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ducto.errors import ArgumentError
from ducto.middleware.providers.requests import Media, read_text

__all__ = ["config_of", "either", "generation_config", "named_model", "read_parts"]

_PART_DEPTH = 3


def config_of(fields: Mapping[str, Any], camel: str, snake: str) -> str:
    """Which of the two spellings of a name `fields` has. Raises `ArgumentError` for both: one would not count."""
    if camel in fields and snake in fields:
        raise ArgumentError(f"'{camel}' and '{snake}' are the same field; send one of them.", field=camel)
    return snake if snake in fields else camel


def either(fields: Mapping[str, Any], camel: str, snake: str) -> Any:
    """The value under either spelling, `None` if it is absent."""
    return fields.get(config_of(fields, camel, snake))


def generation_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    config = either(fields, "generationConfig", "generation_config")
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ArgumentError("'generationConfig' must be an object.", field="generationConfig")
    return config


def named_model(fields: Mapping[str, Any], model: str | None) -> str | None:
    """`model`, which the path names. Raises `ArgumentError` for a body that names another."""
    named = read_text(fields, "model")
    if named is None:
        return model
    named = named.removeprefix("models/")
    if named == "" or (model is not None and named != model):
        raise ArgumentError("The body names another model than the path; leave 'model' out of it.", field="model")
    return named


def read_parts(fields: Mapping[str, Any]) -> Media:
    """The media in the contents and in the system's instruction."""
    media = Media()
    contents = fields.get("contents")
    places = [*(contents if isinstance(contents, list) else [contents])]
    places.append(either(fields, "systemInstruction", "system_instruction"))
    for part in _parts(places, depth=_PART_DEPTH):
        inline, file = either(part, "inlineData", "inline_data"), either(part, "fileData", "file_data")
        if isinstance(file, dict):
            media.unbounded.add("remote_file")
        if isinstance(inline, dict):
            _note(inline, media)
    return media


def _parts(places: list[Any], *, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        return
    for place in places:
        parts = place.get("parts") if isinstance(place, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield part
                # The answer of a function may have parts of its own.
                answer = either(part, "functionResponse", "function_response")
                yield from _parts([answer], depth=depth - 1)


def _note(inline: Mapping[str, Any], media: Media) -> None:
    kind, data = str(either(inline, "mimeType", "mime_type")), inline.get("data")
    if kind.startswith("image/"):
        media.images += 1
        media.image_bytes += len(data) if isinstance(data, str) and data.isascii() else 0
    elif kind.startswith(("audio/", "video/")):
        media.unbounded.add("audio")
