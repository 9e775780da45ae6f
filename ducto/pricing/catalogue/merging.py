"""Lays imported prices over a config that has plans, tools and prices of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ducto.errors import PricingConfigError
from ducto.models.pricing import PricingConfigData, Rates, RateTable
from ducto.pricing.breakdown import exact_decimal
from ducto.pricing.buckets import SEARCH_COUNTS, SEARCH_RATES
from ducto.pricing.catalogue.sources import ImportedPrices
from ducto.pricing.config import parse_pricing
from ducto.pricing.expression import Expression
from ducto.pricing.resolution import DEFAULT

__all__ = ["merged"]

#: Entries of `tools` by which a search that the provider ran is charged: the names that usage gives it, and any.
_SEARCH_TOOLS = frozenset({"web_search", "google_search", DEFAULT})


def merged(config: PricingConfigData, imported: ImportedPrices | PricingConfigData) -> PricingConfigData:
    """`config` with the imported models in the place of its models of the same names, and all the rest kept.

    A name that `config` uses as an alias stays that alias. A table that had `max_output_tokens` keeps it where the
    imported one states none, so that one list can bring the prices and another the limits. `markup` and
    `credits_per_usd` are those of `config` if any of its prices is in dollars; the imported rates are then scaled so
    that they cost what they cost in `imported`. What a search costs is left out of imported tables where `search` or
    `tools` of `config` have a price for it, lest both be charged. Raises `PricingConfigError` where that gives no
    exact price.
    """
    prices = imported.config if isinstance(imported, ImportedPrices) else imported
    factor = Fraction(1)
    money: dict[str, object] = {}
    if _has_dollars(config):
        factor = _credits_per_dollar(prices) / _credits_per_dollar(config)
    else:
        money = {"markup": prices.markup, "credits_per_usd": prices.credits_per_usd}
    priced_apart = _searches_priced_apart(config)
    models: dict[str, object] = dict(config.models)
    for name, price in prices.models.items():
        if name not in config.aliases:
            own = _without_searches(price, priced_apart)
            models[name] = _laid_over(config.models.get(name), _scaled(name, own, factor))
    # An alias of the import gives way to any name of the config; one that lost its model would lead to another.
    aliases = {
        alias: name
        for alias, name in prices.aliases.items()
        if alias not in config.models and name not in config.aliases
    }
    kept = {name: getattr(config, name) for name in type(config).model_fields}
    return parse_pricing({**kept, **money, "models": models, "aliases": {**aliases, **config.aliases}})


def _has_dollars(config: PricingConfigData) -> bool:
    lists = (config.models, *(plan.rate_overrides for plan in config.plans.values()))
    return any(isinstance(price, RateTable) and price.unit == "usd" for prices in lists for price in prices.values())


def _credits_per_dollar(config: PricingConfigData) -> Fraction:
    return Fraction(config.markup) * config.credits_per_usd


def _laid_over(old: str | RateTable | None, new: str | RateTable) -> str | RateTable:
    if isinstance(old, RateTable) and isinstance(new, RateTable) and new.max_output_tokens is None:
        return new.model_copy(update={"max_output_tokens": old.max_output_tokens})
    return new


def _searches_priced_apart(config: PricingConfigData) -> frozenset[str]:
    """The rates of searches that `search` and `tools` of the config have a price for."""
    if not config.tools.keys().isdisjoint(_SEARCH_TOOLS):
        return frozenset(SEARCH_RATES)
    counted = {name for text in config.search.values() for name in Expression(text).names}
    return frozenset(rate for rate, count in zip(SEARCH_RATES, SEARCH_COUNTS, strict=True) if count in counted)


def _without_searches(price: str | RateTable, priced_apart: Collection[str]) -> str | RateTable:
    if not priced_apart or not isinstance(price, RateTable):
        return price
    nothing = dict.fromkeys(priced_apart)

    def cleared(rates: Any) -> dict[str, Any]:
        return {**nothing, "tiers": tuple(tier.model_copy(update=nothing) for tier in rates.tiers)}

    variants = {key: own.model_copy(update=cleared(own)) for key, own in price.variants.items()}
    return price.model_copy(update={**cleared(price), "variants": variants})


def _scaled(name: str, price: str | RateTable, factor: Fraction) -> str | RateTable:
    if factor == 1 or not isinstance(price, RateTable) or price.unit != "usd":
        return price

    def scaled(rates: Rates) -> Mapping[str, Any]:
        return {rate: _product(name, value, factor) for rate, value in rates if isinstance(value, Decimal)}

    def with_tiers(rates: Any) -> dict[str, Any]:
        return {**scaled(rates), "tiers": tuple(tier.model_copy(update=scaled(tier)) for tier in rates.tiers)}

    variants = {key: own.model_copy(update=with_tiers(own)) for key, own in price.variants.items()}
    return price.model_copy(update={**with_tiers(price), "variants": variants})


def _product(name: str, rate: Decimal, factor: Fraction) -> Decimal:
    exact = Fraction(rate) * factor
    product = exact_decimal(exact)
    if Fraction(product) != exact:
        raise PricingConfigError(
            f"models.{name}: {rate} dollars have no exact price under the markup and credits_per_usd of the config; "
            "import with those"
        )
    return product
