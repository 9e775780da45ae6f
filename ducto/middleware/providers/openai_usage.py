"""The details of OpenAI's totals by their names, and finding a usage object in the end of a large event."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ducto.middleware.providers.numbers import FieldReader, Problems
from ducto.middleware.providers.splitting import InputSplit, OutputSplit, split_input, split_output
from ducto.usage import MAX_AMOUNT

__all__ = ["read_input", "read_output", "usage_in_tail"]

#: Occurrences of a name that `usage_in_tail` looks at, from the end.
MAX_TAIL_CANDIDATES = 16


def read_input(total: int, details: FieldReader, *, problems: Problems) -> InputSplit:
    """`total` input tokens by their details, which are a part of them.

    A cache write is under one name in OpenAI's own answers, and under another in those of LiteLLM's proxy, which
    also has Anthropic's lifetimes. What is written for half a day counts as the long write.
    """
    if details.empty:
        return InputSplit(fresh=total)
    lifetimes = details.nested("cache_write_tokens_details")
    translated = details.nested("cache_creation_token_details")
    return split_input(
        total,
        cached=details.part("cached_tokens"),
        written=max(details.part("cache_write_tokens"), details.part("cache_creation_tokens")),
        written_long=max(lifetimes.part("ttl_12h_tokens"), translated.part("ephemeral_1h_input_tokens")),
        audio=details.part("audio_tokens"),
        image=details.part("image_tokens"),
        problems=problems,
    )


def read_output(total: int, details: FieldReader, *, problems: Problems) -> OutputSplit:
    """`total` output tokens by their details, which are a part of them; rejected predictions are text too."""
    if details.empty:
        return OutputSplit(text=total)
    return split_output(
        total,
        reasoning=details.part("reasoning_tokens"),
        audio=details.part("audio_tokens"),
        image=details.part("image_tokens"),
        problems=problems,
    )


def usage_in_tail(tail: bytes, *, name: str, totals: tuple[str, ...]) -> dict[str, Any] | None:
    """The object `name` in a piece of JSON text, mostly its end, if all `totals` in it are counts.

    A quoted name in a *string* of that JSON has its quotes escaped, so only true names are found. Where there
    are several (the schema of a tool may have a property of that name) the largest is taken.
    """
    text = tail.decode("utf-8", "replace")
    places = [match.end() for match in re.finditer(rf'"{re.escape(name)}"\s*:\s*(?=\{{)', text)]
    found: list[dict[str, Any]] = []
    for place in places[-MAX_TAIL_CANDIDATES:]:
        try:
            value, _ = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and all(_is_count(value, total) for total in totals):
            found.append(value)
    return max(found, key=lambda usage: sum(usage[total] for total in totals), default=None)


def _is_count(source: Mapping[str, Any], name: str) -> bool:
    value = source.get(name)
    return type(value) is int and 0 <= value <= MAX_AMOUNT


_DECODER = json.JSONDecoder()
