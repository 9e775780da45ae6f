"""What an entry of LiteLLM's price list means, by the rules of LiteLLM's own cost calculation.

Prices are per token, per second or per character. A key may end in a threshold (`_above_200k_tokens`) and then in a
service tier (`_priority`). A price above a threshold holds for the whole call; what has none there keeps the price of
the threshold below. A price for a service tier that is not stated is the standard one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any, NamedTuple

from ducto.models.pricing import RateTable
from ducto.pricing.buckets import SEARCH_RATES
from ducto.pricing.catalogue.sources import UnpriceableError
from ducto.pricing.catalogue.tables import TieredRates, rate_table

__all__ = ["litellm_table", "tool_fees"]

_TOKEN_PRICES = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
}
_KEY = re.compile(
    rf"(?P<price>{'|'.join(sorted(_TOKEN_PRICES, key=len, reverse=True))})"
    r"(?:_above_(?P<threshold>\d+)(?P<thousands>k?)_tokens)?"
    r"(?:_(?P<service>flex|balanced|priority|ultrafast))?"
)
#: The prices that have thresholds.
_TIERED = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
#: A service tier as a response names it -> the prices that hold for it.
_SERVICES = {
    "flex": "flex",
    "balanced": "balanced",
    "priority": "priority",
    "fast": "priority",
    "ultrafast": "ultrafast",
}

#: What a web search costs, by the size of what it brings in; where all sizes cost the same, that is a rate.
_WEB_SEARCH = "search_context_cost_per_query"
#: The first words of the providers whose searches LiteLLM counts by rules of its own that usage does not tell.
_OWN_SEARCHES = ("perplexity", "groq", "xai")
#: Paid to the tool, not to the model: in a config their place is `tools` and `search`.
_TOOL_FEES = re.compile(r"search_context_|google_maps_|file_search_|code_interpreter_|vector_store_|computer_use_")
#: Prices that no metered call has anything for. Cached sound counts as sound; a batch is not a call; DBUs repeat the
#: price in dollars; LiteLLM does not bill by the last two.
_WITHOUT_USE = re.compile(
    r".*_(batches|batch_requests|decisions)|cache_(read|creation)_input_(audio|image)_token_cost(_.*)?|.*_dbu_cost_per_token"
    r"|regional_.*|input_cost_per_token_cache_hit"
)

#: LiteLLM takes cached tokens of this provider at half the price of input, where the list states none.
_HALF_PRICE_CACHE = "fireworks_ai"
#: Here a tier begins at its threshold, not above it, and reasoning costs what output costs.
_INCLUSIVE_THRESHOLDS = "xai"
#: Its multiplier for `speed=fast` stands apart from its prices.
_SPEED_MULTIPLIERS = "anthropic"
#: LiteLLM takes nothing but input, output and reasoning of this provider into account.
_PLAIN_TOKENS = "perplexity"

_MILLION = Decimal(1_000_000)
_EXACT = Context(prec=60)
#: Binary floating point leaves its traces in the sixteenth digit; a price is written with far fewer.
_NEAREST = Context(prec=12)
_BELOW = Context(prec=12, rounding=ROUND_DOWN)
_MAX_TYPED_DIGITS = 10
_MAX_EXPONENT = 20


class _Where(NamedTuple):
    """The place of a price: `threshold` 0 is none, `service` None the standard one."""

    rate: str
    threshold: int
    service: str | None


def tool_fees(entry: Mapping[str, Any]) -> list[str]:
    """The fees of hosted tools in an entry that its rate table does not have, as text."""
    imported = {_WEB_SEARCH} if _search_fee(entry) else set()
    return [
        f"{key} = {_amounts(value)} dollars"
        for key, value in entry.items()
        if _TOOL_FEES.match(key) and value and key not in imported
    ]


def _search_fee(entry: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a web search costs, as a rate; nothing where no rate can say it.

    Google charges a call that searched, or each query, which the entry says; all others charge each search.
    """
    sizes = entry.get(_WEB_SEARCH)
    provider = str(entry.get("litellm_provider"))
    if not isinstance(sizes, Mapping) or not sizes or provider.startswith(_OWN_SEARCHES):
        return {}
    fees = {_number(_WEB_SEARCH, fee) for fee in sizes.values()}
    if len(fees) != 1 or not any(fees):
        return {}
    per_query = entry.get("web_search_billing_unit") == "per_query"
    return {"per_search_query" if per_query else "per_web_search": fees.pop()}


def _amounts(value: Any) -> str:
    fees = value.values() if isinstance(value, dict) else (value,)
    return " to ".join(dict.fromkeys(f"{fee}" for fee in fees))


def litellm_table(entry: Mapping[str, Any]) -> RateTable:
    """The rate table of one entry. Raises `UnpriceableError`."""
    prices = _Prices(entry)
    maximum = entry.get("max_output_tokens")
    return rate_table(
        prices.rates(None),
        variants=dict(prices.variants()),
        max_output_tokens=maximum if isinstance(maximum, int) and maximum > 0 else None,
    )


class _Prices:
    """The prices of one entry by their place, as rates per 1,000,000 tokens."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry
        self._provider = entry.get("litellm_provider")
        self._mode = entry.get("mode")
        self._found: dict[_Where, Decimal] = {}
        self._units: dict[str, Decimal] = _search_fee(entry)
        for key, value in entry.items():
            if ("cost" in key or "pric" in key) and value is not None and not isinstance(value, bool):
                self._read(key, value)
        self._adapt()

    def _read(self, key: str, value: Any) -> None:
        known = _KEY.fullmatch(key)
        if known is not None:
            threshold = int(known["threshold"] or 0) * (1_000 if known["thousands"] else 1)
            if threshold and self._provider == _INCLUSIVE_THRESHOLDS:
                threshold -= 1
            where = _Where(_TOKEN_PRICES[known["price"]], threshold, known["service"])
            if threshold and where.rate not in _TIERED:
                raise UnpriceableError(f"its price {key!r} is not one that LiteLLM bills by")
            self._found[where] = _per_million(key, value)
        elif _TOOL_FEES.match(key) or _WITHOUT_USE.fullmatch(key) or key == "tiered_pricing":
            return
        elif key == "off_peak_pricing":
            raise UnpriceableError("its price depends on the time of the day")
        elif key in ("input_cost_per_second", "output_cost_per_second") and self._mode == "audio_transcription":
            # That of the output comes first where both are stated: both mean the length of the sound.
            if value and (key.startswith("output") or "per_audio_minute" not in self._units):
                self._units["per_audio_minute"] = _EXACT.multiply(_number(key, value), Decimal(60))
        elif key == "input_cost_per_character" and self._mode == "audio_speech":
            if value:
                self._units["per_1m_characters"] = _per_million(key, value)
        elif value:
            raise UnpriceableError(f"its price {key!r} has no place in a rate table")

    def _adapt(self) -> None:
        """Apply what LiteLLM does for single providers."""
        standard = _Where("input", 0, None)
        if self._provider == _HALF_PRICE_CACHE and standard in self._found:
            self._found.setdefault(_Where("cache_read", 0, None), _EXACT.divide(self._found[standard], Decimal(2)))
        if self._provider == _INCLUSIVE_THRESHOLDS:
            self._keep(lambda where: where.rate not in ("reasoning", "output_audio", "output_image"))
        if self._provider == _PLAIN_TOKENS:
            self._keep(lambda where: where.rate in ("input", "output", "reasoning") and where.threshold == 0)
        if self._units.get("per_1m_characters") and any(self._found.values()):
            raise UnpriceableError("it has prices for tokens and for characters, of which LiteLLM takes only one")

    def _keep(self, wanted: Callable[[_Where], bool]) -> None:
        self._found = {where: rate for where, rate in self._found.items() if wanted(where)}

    def variants(self) -> Iterator[tuple[str, TieredRates]]:
        """The rates of each service tier with prices of its own, and of `speed=fast`, by their conditions."""
        own = {where.service for where in self._found}
        services = [service for service, prices in _SERVICES.items() if prices in own]
        if "tiered_pricing" not in self._entry:
            for service in services:
                yield f"service_tier={service}", self.rates(_SERVICES[service])
        special = self._entry.get("provider_specific_entry")
        factor = special.get("fast") if isinstance(special, Mapping) else None
        if factor is None or self._provider != _SPEED_MULTIPLIERS:
            return
        multiplier = _number("fast", factor)
        yield "speed=fast", _times(self.rates(None), multiplier)
        for service in services:
            yield f"service_tier={service},speed=fast", _times(self.rates(_SERVICES[service]), multiplier)

    def rates(self, service: str | None) -> TieredRates:
        """All rates under a service tier."""
        if self._entry.get("tiered_pricing"):
            return self._rates_by_range()
        base = self._flat(service)
        for rate in _TIERED:
            if (price := self._at(rate, 0, service)) is not None:
                base[rate] = price
        thresholds = sorted(
            {where.threshold for where in self._found if where.threshold and where.service in (None, service)}
        )
        tiers: dict[int, Mapping[str, Decimal]] = {}
        reached = base
        for threshold in thresholds:
            raised = {rate: self._at(rate, threshold, service) for rate in _TIERED}
            reached = {**reached, **{rate: price for rate, price in raised.items() if price is not None}}
            tiers[threshold] = {**_with_pictures(reached), **self._units}
        return TieredRates({**_with_pictures(base), **self._units}, tiers)

    def _at(self, rate: str, threshold: int, service: str | None) -> Decimal | None:
        own = self._found.get(_Where(rate, threshold, service))
        return own if own is not None else self._found.get(_Where(rate, threshold, None))

    def _flat(self, service: str | None) -> dict[str, Decimal]:
        """The rates that have no thresholds."""
        flat = {
            rate: price
            for rate in ("input_audio", "input_image", "output_audio", "output_image")
            if (price := self._at(rate, 0, service if rate.startswith("input") else None)) is not None
        }
        own = self._found.get(_Where("reasoning", 0, service))
        if own is None and _Where("output", 0, service) not in self._found:
            own = self._found.get(_Where("reasoning", 0, None))
        if own is not None:
            flat["reasoning"] = own
        return flat

    def _rates_by_range(self) -> TieredRates:
        """Prices by ranges of the input, each of which states all that holds in it."""
        if any(where.rate in ("input", "cache_read", "cache_write") for where in self._found):
            raise UnpriceableError("it has prices by range and others beside them")
        ranges: dict[int, dict[str, Decimal]] = {}
        end: object = 0
        for start, stop, tier in _ranges(self._entry["tiered_pricing"]):
            if start != end or "input_cost_per_token" not in tier:
                raise UnpriceableError("its prices by range leave a gap")
            end = stop
            stated = {
                _TOKEN_PRICES[key]: _per_million(key, value) for key, value in tier.items() if key in _TOKEN_PRICES
            }
            if len(stated) != len(tier) - 1:
                raise UnpriceableError("its prices by range have others in them than those of tokens")
            flat = self._flat(None)
            if "output" in stated:
                flat.pop("reasoning", None)
            elif (output := self._at("output", 0, None)) is not None:
                flat["output"] = output
            ranges[int(start)] = {**flat, **stated, **self._units}
        return TieredRates(ranges.pop(0, {}), ranges)


def _ranges(tiers: Any) -> list[tuple[Decimal, Decimal, Mapping[str, Any]]]:
    """The tiers of `tiered_pricing` in order, each with the tokens it starts above and ends at."""
    try:
        found = [(*map(Decimal, tier["range"]), tier) for tier in tiers]
        return sorted(((start, stop, tier) for start, stop, tier in found), key=lambda each: each[0])
    except (TypeError, ValueError, KeyError, ArithmeticError):
        raise UnpriceableError("its prices by range are not of the list's form") from None


def _with_pictures(rates: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """A model that answers in pictures alone has a price for their tokens only; it holds for its output."""
    if not rates.get("output") and "output_image" in rates:
        return {**rates, "output": rates["output_image"]}
    return dict(rates)


def _times(rates: TieredRates, factor: Decimal) -> TieredRates:
    def multiplied(each: Mapping[str, Decimal]) -> dict[str, Decimal]:
        # A search costs the same however quickly the model answers.
        return {rate: price if rate in SEARCH_RATES else _EXACT.multiply(price, factor) for rate, price in each.items()}

    return TieredRates(multiplied(rates.base), {above: multiplied(each) for above, each in rates.tiers.items()})


def _per_million(key: str, value: Any) -> Decimal:
    return _EXACT.multiply(_number(key, value), _MILLION).normalize(_EXACT)


def _number(key: str, value: Any) -> Decimal:
    """The price that was meant by what a program wrote as a binary float.

    A fraction that never ends (a price per minute, written per second) is cut off, so that a price rounded up to
    credits is that of the fraction.
    """
    if not isinstance(value, (int, Decimal)):
        raise UnpriceableError(f"its price {key!r} is not a number")
    price = Decimal(value)
    if abs(price.adjusted()) > _MAX_EXPONENT:
        raise UnpriceableError(f"its price {key!r} is out of all proportion")
    meant = _NEAREST.plus(price).normalize(_EXACT)
    return meant if len(meant.as_tuple().digits) <= _MAX_TYPED_DIGITS else _BELOW.plus(price)
