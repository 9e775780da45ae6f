"""The "did you mean" of error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]

#: Longer names come from nobody's typing, and comparing them would be slow.
_MAX_LENGTH = 200


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None."""
    if len(name) > _MAX_LENGTH:
        return None
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(suggestion: str | None) -> str:
    """The end of a message, with a leading space; empty without a suggestion."""
    return f" (did you mean {suggestion!r}?)" if suggestion else ""
