"""Rate tables, compiled to integers: a price is a sum of products over one common denominator, hence exact.

Every count that can have a price has a place in one row of numbers. Folding, tiers, variants, units and
markup are all worked out when the config is published, so that pricing a call is choosing a row of rates and
multiplying.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter

from ducto.errors import PricingConfigError
from ducto.models.pricing import Rates, RateTable, RateTier, RateVariant
from ducto.pricing.buckets import (
    INPUT_BUCKETS,
    PARENTS,
    SEARCH_COUNTS,
    SEARCH_RATES,
    TOKEN_BUCKETS,
    UNIT_COUNTS,
    home_of,
)
from ducto.pricing.suggestions import did_you_mean, nearest
from ducto.usage import UsageMetrics

__all__ = ["QUANTITY_FIELDS", "RateRow", "TableRule", "compile_table", "read_quantities"]

#: Name of a token rate -> the bucket that it prices, per 1,000,000.
_TOKEN_RATES = {bucket.removesuffix("_tokens"): bucket for bucket in TOKEN_BUCKETS}
#: Name of a unit rate -> the count that it prices, and how many of it make one unit.
_UNIT_RATES = {
    "per_request": ("requests", 1),
    "per_image": ("image_count", 1),
    "per_audio_minute": ("audio_milliseconds", 60_000),
    "per_1m_characters": ("input_characters", 1_000_000),
    **{rate: (count, 1) for rate, count in zip(SEARCH_RATES, SEARCH_COUNTS, strict=True)},
}
#: In a table output without a price is priced as input, so that an embeddings table may leave it out safely.
_TABLE_PARENTS = {**PARENTS, "output_tokens": "input_tokens"}
_CONDITIONS = ("service_tier", "speed")

#: `requests` is last because it says nothing of use: it is 1 also where nothing was used.
QUANTITY_FIELDS = (*TOKEN_BUCKETS, *UNIT_COUNTS, *SEARCH_COUNTS, "requests")
_INPUT_COUNT = len(INPUT_BUCKETS)

_get_quantities = attrgetter(*QUANTITY_FIELDS)


def read_quantities(metrics: UsageMetrics) -> tuple[int, ...]:
    """The counts of `metrics` in the order of `QUANTITY_FIELDS`."""
    quantities: tuple[int, ...] = _get_quantities(metrics)
    return quantities


class RateRow:
    """Credits per count, in the order of `QUANTITY_FIELDS`, times `denominator`.

    `hour_in_cache`: the one-hour cache writes are counted as cache writes by the `cache` expressions.
    """

    __slots__ = ("_per_count", "denominator", "hour_in_cache", "rates")

    def __init__(self, per_count: Mapping[str, Fraction], *, hour_in_cache: bool) -> None:
        self.denominator: int = math.lcm(*(rate.denominator for rate in per_count.values()))
        self.rates: tuple[int, ...] = tuple(int(per_count[field] * self.denominator) for field in QUANTITY_FIELDS)
        self.hour_in_cache: bool = hour_in_cache
        self._per_count = per_count

    def dearest(self, buckets: Iterable[str]) -> str:
        """The bucket with the highest rate."""
        return max(buckets, key=self._per_count.__getitem__)


class TieredRows:
    """The rows of one table or variant by total input: `rows[0]`, then one for each threshold passed."""

    __slots__ = ("_rows", "_thresholds")

    def __init__(self, thresholds: list[int], rows: list[RateRow]) -> None:
        self._thresholds = thresholds
        self._rows = rows

    def select(self, quantities: tuple[int, ...]) -> RateRow:
        if not self._thresholds:
            return self._rows[0]
        # `bisect_left` counts the thresholds that the input is strictly above.
        return self._rows[bisect_left(self._thresholds, sum(quantities[:_INPUT_COUNT]))]


class TableRule:
    """The compiled rate table of one model. `name` is its key in the config."""

    __slots__ = ("_base", "_variants", "max_output_tokens", "name")

    def __init__(
        self,
        name: str,
        *,
        base: TieredRows,
        variants: list[tuple[str | None, str | None, TieredRows]],
        max_output_tokens: int | None,
    ) -> None:
        self.name: str = name
        self.max_output_tokens: int | None = max_output_tokens
        self._base = base
        # More conditions first; between one condition of each sort, `service_tier` goes before `speed`. The
        # order in which they are written cannot decide: a config may be kept as jsonb, which does not keep
        # it.
        self._variants = sorted(variants, key=lambda variant: (-_conditions(variant), variant[0] is None))

    def row(self, metrics: UsageMetrics, quantities: tuple[int, ...]) -> RateRow:
        """The rates for a call: of the best matching variant, at the tier of its input."""
        for service_tier, speed, rows in self._variants:
            if (service_tier is None or service_tier == metrics.service_tier) and (
                speed is None or speed == metrics.speed
            ):
                return rows.select(quantities)
        return self._base.select(quantities)


def _conditions(variant: tuple[str | None, str | None, TieredRows]) -> int:
    return sum(condition is not None for condition in variant[:2])


def _stated(rates: Rates) -> dict[str, Decimal]:
    names = (*_TOKEN_RATES, *_UNIT_RATES)
    return {name: rate for name in names if (rate := getattr(rates, name)) is not None}


def _row(stated: Mapping[str, Decimal], factor: Fraction, in_cache: frozenset[str]) -> RateRow:
    by_bucket = {_TOKEN_RATES[name]: rate for name, rate in stated.items() if name in _TOKEN_RATES}
    per_count: dict[str, Fraction] = {}
    hour_in_cache = False
    for bucket in TOKEN_BUCKETS:
        where, home = home_of(bucket, priced=by_bucket, in_cache=in_cache, parents=_TABLE_PARENTS)
        rate = by_bucket[home] if where == "model" else Decimal(0)
        hour_in_cache |= where == "cache" and home != bucket
        per_count[bucket] = Fraction(rate) * factor / 1_000_000
    for name, (field, size) in _UNIT_RATES.items():
        per_count[field] = Fraction(stated.get(name, Decimal(0))) * factor / size
    return RateRow(per_count, hour_in_cache=hour_in_cache)


def _check_complete(stated: Mapping[str, Decimal], path: str) -> None:
    """Refuse a table by which tokens would be free because nobody wrote their price down."""
    token_rates = [name for name in stated if name in _TOKEN_RATES]
    if token_rates and "input" not in stated:
        raise PricingConfigError(f"{path}: states {token_rates[0]!r} but no 'input'; write 0 if input is free")
    if not stated.keys() - set(SEARCH_RATES):
        units = ", ".join(name for name in _UNIT_RATES if name not in SEARCH_RATES)
        raise PricingConfigError(f"{path}: states no price; give 'input' and 'output', or one of {units}")


def _tier_rates(tiers: Iterable[RateTier], path: str) -> list[tuple[int, dict[str, Decimal]]]:
    found: dict[int, dict[str, Decimal]] = {}
    for index, tier in enumerate(tiers):
        if tier.above in found:
            raise PricingConfigError(f"{path}.tiers[{index}].above: {tier.above} is there twice")
        found[tier.above] = _stated(tier)
    return sorted(found.items())


def _rates_at(
    base: Mapping[str, Decimal], tiers: list[tuple[int, dict[str, Decimal]]], threshold: int
) -> dict[str, Decimal]:
    """What a table states for input above `threshold`: the highest tier reached, over its own rates."""
    reached = [rates for above, rates in tiers if above <= threshold]
    return {**base, **(reached[-1] if reached else {})}


def _tiered(
    table: RateTable, variant: RateVariant | None, path: str, factor: Fraction, in_cache: frozenset[str]
) -> TieredRows:
    """The rows of a table, or of a variant over it: variant's tier, variant, table's tier, table."""
    tiers = _tier_rates(table.tiers, path if variant is None else path.rpartition(".variants")[0])
    own_tiers = _tier_rates(variant.tiers, path) if variant is not None else []
    base, own = _stated(table), _stated(variant) if variant is not None else {}
    thresholds = sorted({above for above, _ in (*tiers, *own_tiers)})
    rows: list[RateRow] = []
    for threshold in (-1, *thresholds):
        stated = {**_rates_at(base, tiers, threshold), **_rates_at(own, own_tiers, threshold)}
        _check_complete(stated, path)
        rows.append(_row(stated, factor, in_cache))
    return TieredRows(thresholds, rows)


def _parse_conditions(key: str, path: str) -> tuple[str | None, str | None]:
    """`"service_tier=flex,speed=fast"` -> `("flex", "fast")`."""
    found: dict[str, str] = {}
    for part in key.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise PricingConfigError(f"{path}: write a variant as 'service_tier=VALUE' or 'speed=VALUE'")
        if name not in _CONDITIONS:
            suggestion = did_you_mean(nearest(name, _CONDITIONS))
            raise PricingConfigError(f"{path}: a variant cannot depend on {name!r}{suggestion}")
        if name in found:
            raise PricingConfigError(f"{path}: {name!r} is there twice")
        found[name] = value
    return found.get("service_tier"), found.get("speed")


def compile_table(
    name: str, table: RateTable, *, path: str, usd_factor: Fraction, in_cache: frozenset[str]
) -> TableRule:
    """`usd_factor` is credits for one dollar, markup included. Raises `PricingConfigError` that names the
    path.
    """
    factor = usd_factor if table.unit == "usd" else Fraction(1)
    variants: list[tuple[str | None, str | None, TieredRows]] = []
    seen: set[tuple[str | None, str | None]] = set()
    for key, variant in table.variants.items():
        variant_path = f"{path}.variants.{key}"
        conditions = _parse_conditions(key, variant_path)
        if conditions in seen:
            raise PricingConfigError(f"{variant_path}: another variant has the same conditions")
        seen.add(conditions)
        variants.append((*conditions, _tiered(table, variant, variant_path, factor, in_cache)))
    base = _tiered(table, None, path, factor, in_cache)
    return TableRule(name, base=base, variants=variants, max_output_tokens=table.max_output_tokens)
