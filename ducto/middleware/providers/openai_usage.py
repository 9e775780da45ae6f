"""The arithmetic that OpenAI's formats share: totals that *include* their details, into buckets without
overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ducto.middleware.providers.numbers import FieldReader, Problems
from ducto.usage import MAX_AMOUNT

__all__ = [
    "InputSplit",
    "OutputSplit",
    "split_input",
    "split_output",
    "usage_in_tail",
]

#: Occurrences of a name that `usage_in_tail` looks at, from the end.
MAX_TAIL_CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class InputSplit:
    """Input without overlap: `fresh` is text that was neither read from nor written to a cache."""

    fresh: int
    cached: int
    written: int
    audio: int
    image: int


@dataclass(frozen=True, slots=True)
class OutputSplit:
    """Output without overlap: `text` is what is neither reasoning nor sound nor image."""

    text: int
    reasoning: int
    audio: int
    image: int


def split_input(total: int, details: FieldReader, *, problems: Problems) -> InputSplit:
    """Split `total` input tokens.

    Details may overlap each other (cached sound is in both), so each token goes into the dearest bucket that
    claims it. More cached than total tokens is rejected, because it would lower the bill; more of a dearer
    kind than there are in total is charged as the larger.
    """
    cached, written = details.part("cached_tokens"), details.part("cache_write_tokens")
    audio, image = details.part("audio_tokens"), details.part("image_tokens")
    if cached > total:
        problems.add("more cached tokens than input tokens; all input is charged as fresh")
        cached = 0
    total = _at_least(total, max(audio + image, written), what="input", problems=problems)
    rest = total - audio
    written = min(written, rest)
    rest -= written
    image = min(image, rest)
    rest -= image
    cached = min(cached, rest)
    return InputSplit(fresh=rest - cached, cached=cached, written=written, audio=audio, image=image)


def split_output(total: int, details: FieldReader, *, problems: Problems) -> OutputSplit:
    """Split `total` output tokens; parts that exceed it together are charged as the larger."""
    reasoning = details.part("reasoning_tokens")
    audio, image = details.part("audio_tokens"), details.part("image_tokens")
    parts = reasoning + audio + image
    total = _at_least(total, parts, what="output", problems=problems)
    return OutputSplit(text=total - parts, reasoning=reasoning, audio=audio, image=image)


def usage_in_tail(tail: bytes, *, name: str, totals: tuple[str, ...]) -> dict[str, Any] | None:
    """The object `name` in the end of a JSON text whose start is not known, if all `totals` in it are counts.

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


def _at_least(total: int, parts: int, *, what: str, problems: Problems) -> int:
    if parts <= total:
        return total
    problems.add(f"the details of the {what} tokens exceed their total; the larger is charged")
    return parts


def _is_count(source: Mapping[str, Any], name: str) -> bool:
    value = source.get(name)
    return type(value) is int and 0 <= value <= MAX_AMOUNT


_DECODER = json.JSONDecoder()
