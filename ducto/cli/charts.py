"""Charts of one line, in characters."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bar", "sparkline"]

_HEIGHTS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[int]) -> str:
    """A character for each value, from lowest to highest by its share of the largest; a value below 0 counts as 0."""
    largest = max(values, default=0)
    if largest <= 0:
        return _HEIGHTS[0] * len(values)
    top = len(_HEIGHTS) - 1
    # Rounded up, so that nothing above 0 looks like 0.
    return "".join(_HEIGHTS[-(-max(value, 0) * top // largest)] for value in values)


def bar(value: int, *, largest: int, width: int = 24) -> str:
    """A bar of `width` characters for the `largest` value, in eighths of a character; at least one for any above 0."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, value * width * 8 // largest)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
