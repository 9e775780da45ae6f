"""JSON from the wire: a request strictly, an answer without ever raising."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic_core import from_json

from ducto.errors import ArgumentError

__all__ = ["MAX_TEXT_DEPTH", "load_object", "parse_request", "text_bytes"]

#: How deep `text_bytes` looks into lists and objects.
MAX_TEXT_DEPTH = 8


def parse_request(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body.

    Raises `ArgumentError` for what is not an object in valid UTF-8 JSON, and for JSON that two parsers may
    read differently (a name twice in one object, NaN, infinity): a provider must see the same model and the
    same output limit as the reservation did.
    """
    try:
        parsed = _STRICT.decode(body.decode("utf-8-sig"))
    except ArgumentError:
        raise
    except RecursionError:
        raise ArgumentError("The request body is nested too deeply; flatten it.") from None
    except ValueError:
        raise ArgumentError("The request body must be JSON in UTF-8; it could not be parsed.") from None
    if not isinstance(parsed, dict):
        raise ArgumentError('The request body must be a JSON object, as in {"model": ...}.')
    return parsed


def load_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`, `None` if it holds anything else. Invalid UTF-8 is replaced, as SSE clients
    do.
    """
    try:
        # Thrice as fast. Its refusals are not final: it is stricter about depth, surrogates and invalid UTF-8.
        parsed = from_json(data, cache_strings="keys")
    except ValueError:
        try:
            parsed = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    return parsed if isinstance(parsed, dict) else None


def text_bytes(value: object, *, depth: int = MAX_TEXT_DEPTH) -> int:
    """How many bytes in UTF-8 the text in `value` has: of a string itself, of a list or object all strings in
    it.
    """
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if depth == 0:
        return 0
    if isinstance(value, list):
        return sum(text_bytes(item, depth=depth - 1) for item in value)
    if isinstance(value, dict):
        return sum(text_bytes(item, depth=depth - 1) for item in value.values())
    return 0


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ArgumentError("The request body names the same field twice in one object; send each name once.")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ArgumentError(f"The request body holds {name}, which is not JSON; send a number or null.")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique_names, parse_constant=_no_constant)
