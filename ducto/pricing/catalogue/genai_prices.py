"""Prices from the data inside the package `genai-prices`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ducto.errors import ConfigError
from ducto.models.pricing import RateTable
from ducto.pricing.catalogue.genai_names import ModelNaming
from ducto.pricing.catalogue.sources import ModelChoice, ModelNote, SourcePrices, UnpriceableError, tool_fee_note
from ducto.pricing.catalogue.tables import TieredRates, exact_quotient, rate_table

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["read_genai_prices"]

#: Name of a price -> the rate it is, and how many of the rate's units it is for.
_RATES = {
    "input_mtok": ("input", 1),
    "cache_read_mtok": ("cache_read", 1),
    "cache_write_mtok": ("cache_write", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("input_audio", 1),
    "input_image_mtok": ("input_image", 1),
    "output_mtok": ("output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "output_audio_mtok": ("output_audio", 1),
    "output_image_mtok": ("output_image", 1),
    "requests_kcount": ("per_request", 1_000),
    "input_mchars": ("per_1m_characters", 1),
    "audio_hours": ("per_audio_minute", 60),
    "input_audio_hours": ("per_audio_minute", 60),
}
_WEB_SEARCHES = "web_searches_kcount"
#: Paid to the tool, not to the model. That of web searches has a rate; for the others usage has no count of their own,
#: so that in a config their place is `tools` and `search`.
_TOOL_FEES = frozenset({_WEB_SEARCHES, "social_searches_kcount", "storage_searches_kcount", "code_executions_kcount"})
#: Google charges a call that searched once with these, and each query with all of its later models.
_PER_GROUNDED_CALL = re.compile(r"gemini-[12]\b")
#: Usage counts cached sound as sound and cached pictures as pictures, so these never have anything to price.
_OF_CACHED_MEDIA = frozenset({"cache_audio_read_mtok", "cache_image_read_mtok"})
_CONDITIONS = ("service_tier", "speed")
#: Nobody waits for the answer of a batch, so no batch is metered as a call.
_BATCH = "processing"
#: The library itself bills these for ten seconds at least, whatever their prices say.
_WITH_MINIMUM = frozenset({"groq/whisper-large-v3", "groq/whisper-large-v3-turbo"})


def _package() -> tuple[list[Provider], Any, str]:
    try:
        providers = importlib.import_module("genai_prices.data").providers
        types = importlib.import_module("genai_prices.types")
        version = metadata.version("genai-prices")
    except ImportError:
        raise ConfigError(
            "importing prices of genai-prices needs the extra 'prices': pip install 'ducto[prices]'"
        ) from None
    return providers, types, version


def read_genai_prices(choice: ModelChoice, day: date) -> SourcePrices:
    """The chosen models at their prices of `day` (UTC). Raises as `import_prices`."""
    providers, types, version = _package()
    naming = ModelNaming(providers)
    choice.check(naming.names.values())
    found = SourcePrices(label=f"genai-prices {version}, prices of {day.isoformat()}")
    reader = _PriceReader(types, day)
    imported: dict[str, ModelInfo] = {}
    for provider in providers:
        for model in provider.models:
            name = naming.names[id(model)]
            if not choice.takes(name):
                continue
            try:
                naming.check_reachable(model)
                table, notes = reader.table(name, provider, model)
            except UnpriceableError as reason:
                found.skipped.append(ModelNote(name, str(reason)))
                continue
            found.models[name] = table
            found.notes += notes
            imported[name] = model
    exact, patterns = naming.other_names(imported)
    found.aliases = exact
    # An alias cannot be a pattern, so a pattern gets the table itself.
    found.models.update({pattern: found.models[name] for pattern, name in patterns.items()})
    return found


class _PriceReader:
    """Turns prices of one day into rates."""

    def __init__(self, types: Any, day: date) -> None:
        self._types = types
        # Prices that depend on the time of the day are refused, so any time of it will do.
        self._noon = datetime.combine(day, time(12), UTC)

    def table(self, name: str, provider: Provider, model: ModelInfo) -> tuple[RateTable, list[ModelNote]]:
        """The rate table of `model`, and notes on it. Raises `UnpriceableError`."""
        if f"{provider.id}/{model.id}" in _WITH_MINIMUM:
            raise UnpriceableError("each call is billed for at least 10 seconds")
        changes = self._check_dates(model)
        prices = model.get_prices(self._noon)
        search_rate = _search_rate(provider, model)
        rates = self._rates(prices, search_rate)
        notes = [
            *(ModelNote(name, change) for change in changes),
            *(
                tool_fee_note(name, f"{fee} = {price} dollars for 1,000")
                for fee, price in _stated(prices).items()
                if fee in _TOOL_FEES and (fee != _WEB_SEARCHES or search_rate is None)
            ),
        ]
        return rate_table(rates, variants=dict(self._variants(model, rates, search_rate))), notes

    def _check_dates(self, model: ModelInfo) -> list[str]:
        """Refuse a price that changes with the hour; tell of one that is to change."""
        notes: list[str] = []
        if isinstance(model.prices, list):
            # The last that holds counts.
            for price in reversed(model.prices):
                constraint = price.constraint
                if constraint is None:
                    break
                if not isinstance(constraint, self._types.StartDateConstraint):
                    raise UnpriceableError("its price depends on the time of the day")
                if constraint.active(self._noon):
                    break
                notes.append(f"its price changes on {constraint.start_date.isoformat()}: import it again then")
        for variant in model.price_variants or ():
            if not isinstance(variant.constraint, self._types.StartDateConstraint | None):
                raise UnpriceableError("its price depends on the time of the day")
        return notes

    def _variants(
        self, model: ModelInfo, standard: TieredRates, search_rate: str | None
    ) -> Iterator[tuple[str, TieredRates]]:
        """The rates under each way of being served that has its own."""
        values: dict[str, dict[str, None]] = {condition: {} for condition in _CONDITIONS}
        for variant in model.price_variants or ():
            for condition, value in variant.when.items():
                if condition in values:
                    values[condition][value] = None
                elif condition != _BATCH and not _stated(variant.prices).keys() <= _TOOL_FEES:
                    raise UnpriceableError(f"its price depends on {condition!r}, which usage does not tell")
        tiers, speeds = (list(values[condition]) for condition in _CONDITIONS)
        for tier in (None, *tiers):
            for speed in (None, *speeds):
                context = _context(tier, speed)
                if not context:
                    continue
                rates = self._rates(model.get_prices(self._noon, context), search_rate)
                # One with both conditions is always stated, lest one of them alone decide.
                if rates != standard or len(context) == len(_CONDITIONS):
                    yield ",".join(f"{condition}={value}" for condition, value in context.items()), rates

    def _rates(self, prices: ModelPrice, search_rate: str | None) -> TieredRates:
        """`search_rate` is the rate that the fee of web searches is, `None` where it is none."""
        places = _RATES if search_rate is None else {**_RATES, _WEB_SEARCHES: (search_rate, 1_000)}
        stated: dict[str, Any] = {}
        for name, price in _stated(prices).items():
            if name in _OF_CACHED_MEDIA or (name in _TOOL_FEES and name not in places):
                continue
            if name not in places:
                raise UnpriceableError(f"its price {name!r} has no place in a rate table")
            rate, units = places[name]
            if rate in stated and stated[rate][0] != price:
                raise UnpriceableError("recorded and other sound have different prices")
            stated[rate] = (price, units)
        thresholds = sorted({tier.start for price, _ in stated.values() for tier in self._tiers(price)})
        base, *above = (
            {rate: exact_quotient(self._at(price, threshold), units) for rate, (price, units) in stated.items()}
            for threshold in (None, *thresholds)
        )
        return TieredRates(base, dict(zip(thresholds, above, strict=True)))

    def _tiers(self, price: Any) -> list[Any]:
        return price.tiers if isinstance(price, self._types.TieredPrices) else []

    def _at(self, price: Any, threshold: int | None) -> Decimal:
        """The price for input just above `threshold`, or below all thresholds."""
        value: Decimal = price.base if isinstance(price, self._types.TieredPrices) else price
        for tier in self._tiers(price):
            if threshold is not None and tier.start <= threshold:
                value = tier.price
        return value


def _search_rate(provider: Provider, model: ModelInfo) -> str | None:
    """The rate that the fee of web searches is; `None` where the fee depends on what usage does not tell."""
    for variant in model.price_variants or ():
        if _WEB_SEARCHES in _stated(variant.prices) and not variant.when.keys() <= {*_CONDITIONS, _BATCH}:
            return None
    if provider.id == "google" and model.id.startswith("gemini") and not _PER_GROUNDED_CALL.match(model.id):
        return "per_search_query"
    return "per_web_search"


def _context(tier: str | None, speed: str | None) -> dict[str, str]:
    values = zip(_CONDITIONS, (tier, speed), strict=True)
    return {condition: value for condition, value in values if value is not None}


def _stated(prices: ModelPrice) -> Mapping[str, Any]:
    return {name: price for name, price in vars(prices).items() if price is not None}
