"""Splitting a total of tokens into buckets without overlap, as all formats need it whose totals include their parts."""

from __future__ import annotations

from dataclasses import dataclass

from ducto.middleware.providers.numbers import Problems, capped

__all__ = ["InputSplit", "OutputSplit", "split_input", "split_output", "split_writes"]


@dataclass(frozen=True, slots=True)
class InputSplit:
    """Input without overlap: `fresh` is text that was neither read from nor written to a cache."""

    fresh: int
    cached: int = 0
    written: int = 0
    written_long: int = 0
    audio: int = 0
    image: int = 0


@dataclass(frozen=True, slots=True)
class OutputSplit:
    """Output without overlap: `text` is what is neither reasoning nor sound nor image."""

    text: int
    reasoning: int = 0
    audio: int = 0
    image: int = 0


def split_input(
    total: int,
    *,
    cached: int = 0,
    written: int = 0,
    written_long: int = 0,
    audio: int = 0,
    image: int = 0,
    problems: Problems,
) -> InputSplit:
    """Split `total` input tokens; `written_long` is the part of `written` that the cache keeps for long.

    Parts may overlap each other (cached sound is in both), so each token goes into the dearest bucket that
    claims it. More cached than total tokens is rejected, because it would lower the bill; more of a dearer
    kind than there are in total is charged as the larger.
    """
    written = max(written, written_long)
    if cached > total:
        problems.add("more cached tokens than input tokens; all input is charged as fresh")
        cached = 0
    total = _at_least(total, max(audio + image, written), what="input", problems=problems)
    rest = total - audio
    written = min(written, rest)
    written_long = min(written_long, written)
    rest -= written
    image = min(image, rest)
    rest -= image
    cached = min(cached, rest)
    return InputSplit(
        fresh=rest - cached,
        cached=cached,
        written=written - written_long,
        written_long=written_long,
        audio=audio,
        image=image,
    )


def split_output(total: int, *, reasoning: int = 0, audio: int = 0, image: int = 0, problems: Problems) -> OutputSplit:
    """Split `total` output tokens; parts that exceed it together are charged as the larger."""
    parts = reasoning + audio + image
    total = _at_least(total, parts, what="output", problems=problems)
    return OutputSplit(text=total - parts, reasoning=reasoning, audio=audio, image=image)


def split_writes(total: int, *, short: int, long: int, unclear: bool, problems: Problems) -> tuple[int, int]:
    """`total` cache writes as `(5 minutes, 1 hour)`: what the split does not name was written for 5 minutes, the
    default.

    A split that cannot be read (`unclear`) makes it all count as the dearer one.
    """
    if unclear:
        return 0, capped(max(total, short + long))
    if short + long > total:
        problems.add("the details of the cache writes exceed their total; the larger is charged")
        return short, long
    return total - long, long


def _at_least(total: int, parts: int, *, what: str, problems: Problems) -> int:
    if parts <= total:
        return total
    problems.add(f"the details of the {what} tokens exceed their total; the larger is charged")
    return parts
