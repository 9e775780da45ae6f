"""Reads a pricing config and compiles it; whatever is wrong with it is found here, before it is published."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TypeAlias

from pydantic import ValidationError

from ducto.errors import ExpressionError, PricingConfigError, UnknownModelError
from ducto.models.pricing import (
    EXPRESSION_TAG,
    RATE_TABLE_TAG,
    PlanDefinition,
    PricingConfigData,
    RateTable,
    RateTier,
    RateVariant,
)
from ducto.pricing.buckets import CACHE_BUCKETS, home_of
from ducto.pricing.expression import BoundExpression, Expression, fold
from ducto.pricing.rate_tables import TableRule, compile_table
from ducto.pricing.resolution import DEFAULT, ModelNames, check_aliases
from ducto.pricing.suggestions import did_you_mean, nearest

__all__ = ["CompiledPricing", "ExpressionRule", "PriceList", "Rule", "compile_pricing", "parse_pricing"]

#: Model names come from clients, so what is kept for them has a bound.
_MAX_KEPT_NAMES = 4_096
_MAX_KEPT_NAME_LENGTH = 200
_MAX_REPORTED = 10

_HOUR = "cache_write_1h_tokens"


class ExpressionRule:
    """The compiled expression of one model. `name` is its key in the config."""

    __slots__ = ("expression", "hour_in_cache", "max_output_tokens", "name")

    def __init__(self, name: str, expression: Expression, in_cache: frozenset[str]) -> None:
        self.name: str = name
        self.max_output_tokens: int | None = None
        self.expression: BoundExpression = BoundExpression(expression, fold(expression.names, in_cache))
        where, home = home_of(_HOUR, priced=expression.names, in_cache=in_cache)
        self.hour_in_cache: bool = where == "cache" and home != _HOUR


Rule: TypeAlias = ExpressionRule | TableRule


class PriceList:
    """The prices that one plan sees: its own overrides, then the config's models. Without a plan: the models
    alone.
    """

    __slots__ = ("_kept", "_models", "_overrides", "per_operation", "plan_id")

    def __init__(
        self,
        models: ModelNames[Rule],
        *,
        plan_id: str | None = None,
        overrides: ModelNames[Rule] | None = None,
        per_operation: Mapping[str, int] | None = None,
    ) -> None:
        self.plan_id: str | None = plan_id
        self.per_operation: Mapping[str, int] = per_operation or {}
        self._models = models
        self._overrides = overrides
        self._kept: dict[str, Rule] = {}

    def find(self, model: str) -> Rule:
        """Raises `UnknownModelError`, naming the closest known model."""
        rule = self._kept.get(model)
        if rule is not None:
            return rule
        if self._overrides is not None:
            rule = self._overrides.find(model)
        if rule is None:
            rule = self._models.find(model)
        if rule is None:
            shown = model if len(model) <= _MAX_KEPT_NAME_LENGTH else f"{model[:_MAX_KEPT_NAME_LENGTH]}..."
            hint = did_you_mean(self._models.suggest(model))
            raise UnknownModelError(
                f"no price is known for the model {shown!r}{hint}; add it, or {DEFAULT!r}, to the pricing config",
                model=model,
            )
        if len(model) <= _MAX_KEPT_NAME_LENGTH:
            if len(self._kept) >= _MAX_KEPT_NAMES:
                self._kept.clear()
            self._kept[model] = rule
        return rule

    def find_without_name(self) -> Rule:
        """The rule for use that names no model: the default, else `UnknownModelError`."""
        rule = self._overrides.default if self._overrides is not None else None
        rule = rule if rule is not None else self._models.default
        if rule is None:
            raise UnknownModelError(
                f"the usage names no model; name it, or add {DEFAULT!r} to the models of the pricing config"
            )
        return rule

    def max_output_tokens(self, model: str) -> int | None:
        """Of the plan's own table, else of the config's; None where neither says. Raises
        `UnknownModelError`.
        """
        own = self.find(model).max_output_tokens
        if own is not None or self._overrides is None:
            return own
        # An override changes the price; what the model can do is still what the config says.
        below = self._models.find(model)
        return below.max_output_tokens if below is not None else None


class CompiledPricing:
    """A pricing config that is known to be sound. Made by `compile_pricing`; immutable apart from bounded
    caches.
    """

    __slots__ = (
        "_in_cache",
        "_models",
        "_usd_factor",
        "cache",
        "config",
        "hour_in_cache_alone",
        "list_prices",
        "plans",
        "search",
        "tools",
    )

    def __init__(self, config: PricingConfigData) -> None:
        self.config: PricingConfigData = config
        self._usd_factor = Fraction(config.markup) * config.credits_per_usd
        cache = {name: _expression(text, f"cache.{name}") for name, text in config.cache.items()}
        mentioned = {name for expression in cache.values() for name in expression.names}
        self._in_cache = frozenset(mentioned & CACHE_BUCKETS)
        #: Whether one-hour writes are counted as cache writes where no model's price has a part.
        self.hour_in_cache_alone: bool = _HOUR not in self._in_cache
        #: The cache expressions, by whether one-hour writes are counted as cache writes in them.
        self.cache: dict[bool, dict[str, BoundExpression]] = {
            False: {name: BoundExpression(expression) for name, expression in cache.items()},
            True: {
                name: BoundExpression(expression, {_HOUR: "cache_write_tokens"}) for name, expression in cache.items()
            },
        }
        self.tools: dict[str, BoundExpression] = _bound(config.tools, "tools")
        self.search: dict[str, BoundExpression] = _bound(config.search, "search")
        self._models = self._names(config.models, "models")
        check_aliases(self._models, config.aliases)
        self.list_prices: PriceList = PriceList(self._models)
        self.plans: dict[str, PriceList] = {id_: self.price_list(plan) for id_, plan in config.plans.items()}

    def price_list(self, plan: PlanDefinition) -> PriceList:
        """Compile the overrides of a plan, which may be one that this config dropped."""
        overrides = self._names(plan.rate_overrides, f"plans.{plan.id}.rate_overrides")
        return PriceList(self._models, plan_id=plan.id, overrides=overrides, per_operation=dict(plan.per_operation))

    def _names(self, prices: Mapping[str, str | RateTable], path: str) -> ModelNames[Rule]:
        rules = {name: self._rule(name, price, f"{path}.{name}") for name, price in prices.items()}
        return ModelNames(rules, self.config.aliases)

    def _rule(self, name: str, price: str | RateTable, path: str) -> Rule:
        if isinstance(price, str):
            return ExpressionRule(name, _expression(price, path), self._in_cache)
        return compile_table(name, price, path=path, usd_factor=self._usd_factor, in_cache=self._in_cache)


def _expression(text: str, path: str) -> Expression:
    try:
        return Expression(text)
    except ExpressionError as error:
        raise ExpressionError(
            f"{path}: {error}", text=text, position=error.position, suggestion=error.suggestion
        ) from None


def _bound(texts: Mapping[str, str], path: str) -> dict[str, BoundExpression]:
    return {name: BoundExpression(_expression(text, f"{path}.{name}")) for name, text in texts.items()}


def compile_pricing(config: PricingConfigData) -> CompiledPricing:
    """Check every price of `config` and compile it.

    Raises `PricingConfigError`, or `ExpressionError` with position and suggestion; both name the path of the
    fault.
    """
    return CompiledPricing(config)


_FIELDS: frozenset[str] = frozenset(
    name
    for model in (PricingConfigData, PlanDefinition, RateTable, RateTier, RateVariant)
    for name in model.model_fields
)


def path_of(location: tuple[int | str, ...]) -> str:
    """pydantic's location as it would be written: `models.gpt-4o.tiers[1].above`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in (EXPRESSION_TAG, RATE_TABLE_TAG, "[key]"):
            path += f".{part}" if path else part
    return path


def validation_message(error: ValidationError) -> str:
    """All faults of `error` in one line, each with its path; the refused values stay out of it."""
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=False):
        path = path_of(fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            suggestion = nearest(str(fault["loc"][-1]), _FIELDS)
            message = f"there is no such field{did_you_mean(suggestion)}"
        faults.append(f"{path}: {message}" if path else message)
    more = len(faults) - _MAX_REPORTED
    return "; ".join(faults[:_MAX_REPORTED]) + (f"; and {more} more" if more > 0 else "")


def parse_pricing(data: PricingConfigData | Mapping[str, object]) -> PricingConfigData:
    """`data` as a config, checked as far as its form goes. Raises one `PricingConfigError` that lists every
    fault.
    """
    if isinstance(data, PricingConfigData):
        return data
    try:
        return PricingConfigData.model_validate(data)
    except ValidationError as error:
        raise PricingConfigError(validation_message(error)) from None
