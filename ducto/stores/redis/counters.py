"""What a `RedisCacheStore` counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheCounters"]


@dataclass(slots=True)
class CacheCounters:
    """Whole numbers that only grow, from the making of the store on."""

    #: Reads that Redis answered, and reads that went to the inner store because Redis had no answer.
    hits: int = 0
    misses: int = 0
    #: Calls that went to the inner store because Redis could not be used.
    fallbacks: int = 0
    #: Calls that were refused, and repeated calls that were answered again, without the inner store.
    refusals: int = 0
    replies: int = 0
