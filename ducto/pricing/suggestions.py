"""The "did you mean" of error messages.

Comparing two names well is slow (`difflib`), and names come from clients. So of many known names only a few are
compared: those that share the most pairs of neighbouring characters with the name, counted by bits of whole numbers.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

__all__ = ["KnownNames", "did_you_mean", "nearest"]

#: Longer names come from nobody's typing, and comparing them would be slow.
_MAX_LENGTH = 200
#: How many names are compared at most.
_MAX_COMPARED = 24
#: Pairs of characters share this many bits; where two fall on one, a name seems a little likelier than it is.
_BITS = 1024


class KnownNames:
    """Names to find the nearest of. The pairs of many names are counted once, when they are first asked for."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: Sequence[str] = tuple(names)

    def nearest(self, name: str) -> str | None:
        """The known name that was probably meant, or None."""
        if len(name) > _MAX_LENGTH:
            return None
        compared = self._names if len(self._names) <= _MAX_COMPARED else self._likeliest(name)
        close = difflib.get_close_matches(name, compared, n=1, cutoff=0.6)
        return close[0] if close else None

    def _likeliest(self, name: str) -> list[str]:
        """Those that share the largest part of their pairs with `name`."""
        pairs = _pairs_of(name)
        count = pairs.bit_count()
        shares = [(pairs & own).bit_count() / (count + own_count + 1) for own, own_count in self._pairs]
        return [self._names[index] for index in heapq.nlargest(_MAX_COMPARED, range(len(shares)), shares.__getitem__)]

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        """The pairs of each name, and how many."""
        found = (_pairs_of(name) for name in self._names)
        return [(pairs, pairs.bit_count()) for pairs in found]


def _pairs_of(name: str) -> int:
    """The pairs of neighbouring characters in `name` as a set of bits."""
    pairs = 0
    for first, second in pairwise(name):
        # 31 keeps a pair apart from the same two characters in the other order.
        pairs |= 1 << (ord(first) * 31 + ord(second)) % _BITS
    return pairs


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None. Who asks again and again keeps a `KnownNames`."""
    return KnownNames(known).nearest(name)


def did_you_mean(suggestion: str | None) -> str:
    """The end of a message, with a leading space; empty without a suggestion."""
    return f" (did you mean {suggestion!r}?)" if suggestion else ""
