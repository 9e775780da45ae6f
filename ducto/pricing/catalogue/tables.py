"""From complete sets of rates to a rate table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from pydantic import ValidationError

from ducto.errors import PricingConfigError
from ducto.models.pricing import MAX_PRICE_DECIMALS, RateTable
from ducto.pricing.breakdown import exact_decimal
from ducto.pricing.buckets import PARENTS, SEARCH_RATES
from ducto.pricing.catalogue.sources import UnpriceableError
from ducto.pricing.config import validation_message
from ducto.pricing.rate_tables import compile_table

__all__ = ["TieredRates", "exact_quotient", "rate_table"]


@dataclass(frozen=True, slots=True)
class TieredRates:
    """All rates of one way of being served. `tiers` gives, for input above a threshold, all rates there."""

    base: Mapping[str, Decimal]
    tiers: Mapping[int, Mapping[str, Decimal]] = field(default_factory=dict)

    @property
    def are_all_zero(self) -> bool:
        """Whether the model itself is free; what a search costs beside it says nothing of that."""
        rows = (self.base, *self.tiers.values())
        return not any(rate for rates in rows for name, rate in rates.items() if name not in SEARCH_RATES)


def exact_quotient(price: Decimal, divisor: int) -> Decimal:
    """`price / divisor`; `UnpriceableError` where no price of a config is exactly that."""
    exact = Fraction(price) / divisor
    quotient = exact_decimal(exact)
    exponent = quotient.as_tuple().exponent
    if Fraction(quotient) != exact or (isinstance(exponent, int) and -exponent > MAX_PRICE_DECIMALS):
        raise UnpriceableError(f"a price of {price} for {divisor} is not an exact price for 1")
    return quotient


def rate_table(
    rates: TieredRates,
    *,
    variants: Mapping[str, TieredRates] | None = None,
    max_output_tokens: int | None = None,
) -> RateTable:
    """The table in dollars that says `rates`, and `variants` by their conditions.

    A variant states all of its rates, so that none of the table's shows through. Raises `UnpriceableError` where the
    rates make no valid table.
    """
    if not rates.base.keys() - set(SEARCH_RATES):
        raise UnpriceableError("the source states no price for it")
    if all(each.are_all_zero for each in (rates, *(variants or {}).values())):
        raise UnpriceableError("the source states no price above 0; add it by hand if it is meant to be free")
    data: dict[str, object] = {"unit": "usd", **_stated(rates, ())}
    if max_output_tokens is not None:
        data["max_output_tokens"] = max_output_tokens
    if variants:
        data["variants"] = {conditions: _stated(own, rates.base) for conditions, own in variants.items()}
    try:
        table = RateTable.model_validate(data)
        compile_table("", table, path="its prices", usd_factor=Fraction(1), in_cache=frozenset())
    except ValidationError as error:
        raise UnpriceableError(validation_message(error)) from None
    except PricingConfigError as error:
        raise UnpriceableError(str(error)) from None
    return table


def _stated(rates: TieredRates, names: Iterable[str]) -> dict[str, object]:
    """The rates, and in each tier those that differ from them: what a tier leaves out it takes from there.

    `names` are rates of the table, which would show through a variant that leaves them out.
    """
    base = _completed(rates.base, names)
    tiers: list[dict[str, object]] = []
    for above, own in sorted(rates.tiers.items()):
        complete = _completed(own, base)
        differing = {name: rate for name, rate in complete.items() if base.get(name) != rate}
        # A tier without a rate of its own still ends the one below it.
        tiers.append({"above": above, **differing})
    return {**base, **({"tiers": tiers} if tiers else {})}


def _completed(rates: Mapping[str, Decimal], names: Iterable[str]) -> dict[str, Decimal]:
    """`rates` with a rate for each of `names`: where they state none, that of the bucket it is counted in."""
    complete = dict(rates)
    for name in names:
        counted_in = name
        while counted_in not in rates and f"{counted_in}_tokens" in PARENTS:
            counted_in = PARENTS[f"{counted_in}_tokens"].removesuffix("_tokens")
        if counted_in not in rates:
            raise UnpriceableError(f"a tier or a variant has no price for {name!r}, which the model has")
        complete.setdefault(name, rates[counted_in])
    return complete
