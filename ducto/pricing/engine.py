"""Prices calls. All rounding of money is in this file, in one function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from operator import mul
from typing import Literal

from ducto.errors import PlanNotFoundError, PricingError, UnknownModelError
from ducto.models.pricing import PlanDefinition, PricingConfigData
from ducto.pricing.breakdown import CostBreakdown, CostComponent
from ducto.pricing.buckets import INPUT_BUCKETS, MEDIA_BUCKETS, OUTPUT_BUCKETS, TOKEN_BUCKETS, UNIT_COUNTS
from ducto.pricing.config import CompiledPricing, ExpressionRule, PriceList, Rule, compile_pricing
from ducto.pricing.expression import BoundExpression
from ducto.pricing.rate_tables import RateRow, read_quantities
from ducto.pricing.resolution import DEFAULT
from ducto.pricing.suggestions import did_you_mean, nearest
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["PricingEngine"]

#: Definitions of plans that the config does not have (any more), kept compiled.
_MAX_FOREIGN_PLANS = 256

#: How many of the quantities need the price of a model.
_MODEL_QUANTITIES = len(TOKEN_BUCKETS) + len(UNIT_COUNTS)
#: How a call may turn out, for a price that is an expression: (where all input falls, where all output
#: falls).
_TURNS = tuple(
    (input_bucket, output_bucket)
    for input_bucket in ("input_tokens", "cache_write_tokens", "cache_write_1h_tokens")
    for output_bucket in ("output_tokens", "reasoning_tokens")
)


def _rounded(numerator: int, denominator: int, rounding: Literal["up", "half_up"]) -> int:
    """The credits to charge for an exact cost; a cost below 0 is charged as 0. Raises `PricingError` past
    2^53-1.
    """
    if numerator <= 0:
        return 0
    # Floor division of the negative is the ceiling; that of the doubled, shifted by a half, is half up.
    up = rounding == "up"
    total = -(-numerator // denominator) if up else (2 * numerator + denominator) // (2 * denominator)
    if total > MAX_AMOUNT:
        raise PricingError(f"the price of the call is above {MAX_AMOUNT} credits; check the usage and the config")
    return total


class PricingEngine:
    """Prices calls by one version of a config. Safe to share between threads and tasks.

    `version` is copied into each `CostBreakdown`. Raises `PricingConfigError` or `ExpressionError` when a
    config that is not compiled yet is at fault.
    """

    def __init__(self, pricing: CompiledPricing | PricingConfigData, *, version: str | None = None) -> None:
        self.pricing: CompiledPricing = compile_pricing(pricing) if isinstance(pricing, PricingConfigData) else pricing
        self.version = version
        self._rounding = self.pricing.config.rounding
        self._foreign_plans: dict[str, tuple[PlanDefinition, PriceList]] = {}

    @property
    def config(self) -> PricingConfigData:
        return self.pricing.config

    def calculate(self, metrics: UsageMetrics, plan: PlanDefinition | str | None = None) -> CostBreakdown:
        """What the call costs under `plan`, or at list price without one.

        A plan given by its id must be one of the config (`PlanNotFoundError`); a `PlanDefinition` may be one
        that the config has dropped. Raises `UnknownModelError` where no price is known, for a model or a
        fixed job, `ExpressionError` where an expression cannot be evaluated, and `PricingError` for a total
        above 2^53-1.
        """
        prices = self.pricing.list_prices if plan is None else self._prices(plan)
        quantities = read_quantities(metrics)
        rule = self._rule(metrics, quantities, prices)
        row: RateRow | None = None
        extras: list[CostComponent] = []
        numerator, denominator = 0, 1
        if isinstance(rule, ExpressionRule):
            extras.append(CostComponent("model", metrics.requests, rule.expression.evaluate(metrics)))
            hour_in_cache = rule.hour_in_cache
        elif rule is not None:
            row = rule.row(metrics, quantities)
            numerator, denominator = sum(map(mul, quantities, row.rates)), row.denominator
            hour_in_cache = row.hour_in_cache
        else:
            hour_in_cache = self.pricing.hour_in_cache_alone
        self._add_extras(extras, metrics, prices, hour_in_cache=hour_in_cache)
        if len(extras) == 1 and row is None:
            numerator, denominator = extras[0].amount.as_integer_ratio()
        elif extras:
            exact = sum((Fraction(extra.amount) for extra in extras), Fraction(numerator, denominator))
            numerator, denominator = exact.as_integer_ratio()
        return CostBreakdown(
            total=_rounded(numerator, denominator, self._rounding),
            exact=(numerator, denominator),
            row=row,
            quantities=quantities,
            extras=tuple(extras),
            model=None if rule is None else rule.name,
            plan_id=prices.plan_id,
            pricing_version=self.version,
        )

    def estimate(self, metrics: UsageMetrics, plan: PlanDefinition | str | None = None) -> int:
        """The most that a call of this size may cost, for a reservation: never less than
        `calculate(metrics).total`.

        For a rate table it is a bound over every way in which the same input and output tokens can fall into
        buckets: all input in the dearest input bucket, all output in the dearest output bucket (of sound and
        pictures only if `metrics` has any), at the tier of this input and the variant of this service tier and
        speed. For an expression, and for `cache` expressions, it is the dearest of what was given and all input
        fresh, written to the cache, or written for an hour, each with all output visible or reasoning. Raises as
        `calculate`.
        """
        given = self.calculate(metrics, plan)
        prices = self.pricing.list_prices if plan is None else self._prices(plan)
        quantities = read_quantities(metrics)
        rule = self._rule(metrics, quantities, prices)
        turns: set[tuple[str, str]] = set()
        if rule is not None and not isinstance(rule, ExpressionRule):
            row = rule.row(metrics, quantities)
            sides = (INPUT_BUCKETS, OUTPUT_BUCKETS)
            dearest_input, dearest_output = (row.dearest(_possible(metrics, side)) for side in sides)
            turns.add((dearest_input, dearest_output))
        if isinstance(rule, ExpressionRule) or self.pricing.config.cache:
            turns.update(_TURNS)
        return max(given.total, *(self.calculate(_turned(metrics, *turn), plan).total for turn in turns), 0)

    def resolve(self, model: str, plan: PlanDefinition | str | None = None) -> str:
        """The key of the config (of the plan's overrides, where one fits) that prices `model`, or its
        default.

        Raises `UnknownModelError`.
        """
        return self._prices(plan).find(model).name

    def max_output_tokens(self, model: str, plan: PlanDefinition | str | None = None) -> int | None:
        """The most that `model` can answer with, where its rate table says so. Raises `UnknownModelError`."""
        return self._prices(plan).max_output_tokens(model)

    def _prices(self, plan: PlanDefinition | str | None) -> PriceList:
        if plan is None:
            return self.pricing.list_prices
        plans = self.pricing.config.plans
        if isinstance(plan, str):
            if plan not in plans:
                hint = did_you_mean(nearest(plan, plans))
                raise PlanNotFoundError(f"the pricing config has no plan {plan!r}{hint}")
            return self.pricing.plans[plan]
        own = plans.get(plan.id)
        if own is plan or own == plan:
            return self.pricing.plans[plan.id]
        kept = self._foreign_plans.get(plan.id)
        if kept is not None and (kept[0] is plan or kept[0] == plan):
            return kept[1]
        prices = self.pricing.price_list(plan)
        if len(self._foreign_plans) >= _MAX_FOREIGN_PLANS:
            self._foreign_plans.clear()
        self._foreign_plans[plan.id] = (plan, prices)
        return prices

    def _rule(self, metrics: UsageMetrics, quantities: tuple[int, ...], prices: PriceList) -> Rule | None:
        """What prices the model's part; None where no model had a part: a fixed job, or tools and searches
        alone.
        """
        if metrics.model is not None:
            return prices.find(metrics.model)
        if metrics.fixed_job is not None or not any(quantities[:_MODEL_QUANTITIES]):
            return None
        return prices.find_without_name()

    def _add_extras(
        self, extras: list[CostComponent], metrics: UsageMetrics, prices: PriceList, *, hour_in_cache: bool
    ) -> None:
        pricing = self.pricing
        config = pricing.config
        if config.cache and (metrics.cache_read_tokens or metrics.cache_write_tokens or metrics.cache_write_1h_tokens):
            _add_named(extras, "cache", pricing.cache[hour_in_cache], metrics)
        if metrics.tool_calls and pricing.tools:
            self._add_tools(extras, metrics)
        if config.search and (metrics.search_queries or metrics.search_results or metrics.web_search_calls):
            _add_named(extras, "search", pricing.search, metrics)
        if metrics.fixed_job is not None:
            extras.append(self._fixed(metrics.fixed_job, prices))

    def _add_tools(self, extras: list[CostComponent], metrics: UsageMetrics) -> None:
        """Each call of a tool at the price of its name, else of `_default`, else at nothing.

        A tool without a price is a function that the caller runs: the model's output tokens have paid for
        its call.
        """
        tools = self.pricing.tools
        default = tools.get(DEFAULT)
        for name, calls in Counter(call.name for call in metrics.tool_calls).items():
            expression = tools.get(name, default)
            if expression is not None:
                amount = exact_product(expression.evaluate(metrics), calls)
                extras.append(CostComponent(f"tools.{name}", calls, amount))

    def _fixed(self, job: str, prices: PriceList) -> CostComponent:
        fixed = self.pricing.config.fixed
        amount = prices.per_operation.get(job, fixed.get(job))
        if amount is None:
            hint = did_you_mean(nearest(job, (*fixed, *prices.per_operation)))
            raise UnknownModelError(
                f"no price is known for the job {job[:200]!r}{hint}; add it to `fixed` in the pricing config"
            )
        return CostComponent(f"fixed.{job}", 1, Decimal(amount))


def exact_product(amount: Decimal, count: int) -> Decimal:
    """`amount * count` whatever precision the caller's decimal context has."""
    sign, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)  # an evaluated price is finite
    product = int(Decimal((0, digits, 0))) * count
    return Decimal(f"{'-' if sign else ''}{product}E{exponent}")


def _add_named(
    extras: list[CostComponent], group: str, expressions: Mapping[str, BoundExpression], metrics: UsageMetrics
) -> None:
    for name, expression in expressions.items():
        extras.append(CostComponent(f"{group}.{name}", 1, expression.evaluate(metrics)))


def _possible(metrics: UsageMetrics, buckets: Iterable[str]) -> list[str]:
    """The buckets that tokens of this call can fall into."""
    return [bucket for bucket in buckets if bucket not in MEDIA_BUCKETS or getattr(metrics, bucket)]


def _turned(metrics: UsageMetrics, input_bucket: str, output_bucket: str) -> UsageMetrics:
    """`metrics` with all input in one bucket and all output in another; the totals stay the same."""
    # A total can pass the bound of one bucket only where the price passes it as well, so it is not checked
    # again.
    return metrics.model_copy(
        update={
            **dict.fromkeys((*INPUT_BUCKETS, *OUTPUT_BUCKETS), 0),
            input_bucket: metrics.total_input_tokens,
            output_bucket: metrics.total_output_tokens,
        }
    )
