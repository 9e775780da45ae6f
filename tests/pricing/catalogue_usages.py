"""Calls of every kind, as the price lists' own libraries are asked for their price."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from ducto.models.pricing import RateTable

__all__ = ["USAGES", "credits_of", "input_total", "output_total", "searches_of", "usage_for"]

USAGES: dict[str, dict[str, int]] = {
    "plain": {"input_tokens": 1_234, "output_tokens": 567},
    "cached": {
        "input_tokens": 1_000,
        "cache_read_tokens": 2_345,
        "cache_write_tokens": 678,
        "cache_write_1h_tokens": 91,
        "output_tokens": 345,
    },
    "audio": {"input_tokens": 100, "input_audio_tokens": 2_222, "output_tokens": 50, "output_audio_tokens": 333},
    "long": {"input_tokens": 450_001, "cache_read_tokens": 150_000, "output_tokens": 999},
    "reasoning": {"input_tokens": 777, "output_tokens": 10, "reasoning_tokens": 4_321},
    # On both sides of a threshold that both lists have.
    "at 200k": {"input_tokens": 150_000, "cache_read_tokens": 50_000, "output_tokens": 999},
    "above 200k": {"input_tokens": 150_001, "cache_read_tokens": 50_000, "output_tokens": 999},
    "searched": {"input_tokens": 3_210, "output_tokens": 123, "web_search_calls": 3},
}

_INPUT = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "input_audio_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens", "output_audio_tokens")


def usage_for(table: RateTable, usage: dict[str, int]) -> dict[str, int]:
    """`usage` as a model can have it: one without a price for output answers with none, and one whose searches are paid
    by the query searches once with as many queries."""
    counts = {name: count for name, count in usage.items() if table.output is not None or name not in _OUTPUT}
    if table.per_search_query is not None and (searches := counts.get("web_search_calls")):
        counts |= {"web_search_calls": 1, "search_queries": searches}
    return counts


def searches_of(usage: dict[str, int]) -> int:
    """As the lists count them: queries where they are told, else searches."""
    return usage.get("search_queries", usage.get("web_search_calls", 0))


def input_total(usage: dict[str, int]) -> int:
    return sum(usage.get(name, 0) for name in _INPUT)


def output_total(usage: dict[str, int]) -> int:
    return sum(usage.get(name, 0) for name in _OUTPUT)


def credits_of(dollars: Decimal) -> int:
    """Rounded up to a millionth of a dollar."""
    return int((dollars * 1_000_000).to_integral_value(ROUND_CEILING))
