"""The token buckets as a tree: a bucket that has no price of its own is counted in its nearest priced
ancestor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

__all__ = [
    "CACHE_BUCKETS",
    "INPUT_BUCKETS",
    "MEDIA_BUCKETS",
    "OUTPUT_BUCKETS",
    "PARENTS",
    "SEARCH_COUNTS",
    "SEARCH_RATES",
    "TOKEN_BUCKETS",
    "UNIT_COUNTS",
    "home_of",
]

INPUT_BUCKETS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "input_image_tokens",
)
OUTPUT_BUCKETS = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")
#: Sound and pictures: tokens fall here only if the request has any.
MEDIA_BUCKETS = frozenset({"input_audio_tokens", "input_image_tokens", "output_audio_tokens", "output_image_tokens"})
TOKEN_BUCKETS = INPUT_BUCKETS + OUTPUT_BUCKETS
CACHE_BUCKETS = frozenset({"cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"})

#: What else a model can be paid by, besides `requests`.
UNIT_COUNTS = ("image_count", "audio_milliseconds", "input_characters")
#: Searches that the provider ran for the model. They may have a price beside the model's tokens, and say nothing of
#: whether a model had a part in the call.
SEARCH_COUNTS = ("web_search_calls", "search_queries")
#: The rates of these, in the same order.
SEARCH_RATES = ("per_web_search", "per_search_query")

PARENTS: Mapping[str, str] = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}


def home_of(
    bucket: str,
    *,
    priced: Collection[str],
    in_cache: Collection[str],
    parents: Mapping[str, str] = PARENTS,
) -> tuple[Literal["model", "cache", "none"], str]:
    """Where the tokens of `bucket` are paid: by the model's own price, by the `cache` expressions, or
    nowhere.

    `priced` are the buckets that the model's price states, `in_cache` those that the `cache` expressions
    mention. The second part of the answer is the bucket in which they are counted: the nearest ancestor that
    has a price.
    """
    current: str | None = bucket
    while current is not None:
        if current in priced:
            return "model", current
        if current in in_cache:
            return "cache", current
        current = parents.get(current)
    return "none", bucket
