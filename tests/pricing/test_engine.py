"""What the engine adds up, rounds and refuses."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest

from ducto.errors import ExpressionError, PricingError, UnknownModelError
from ducto.models.pricing import PlanDefinition
from ducto.pricing import CostBreakdown, CostComponent, PricingEngine, parse_pricing
from ducto.usage import MAX_AMOUNT, ToolCall, UsageMetrics


def engine(model: Any = None, *, version: str | None = None, **config: Any) -> PricingEngine:
    models = {} if model is None else {"m": model}
    return PricingEngine(parse_pricing({"models": models, **config}), version=version)


def used(**usage: Any) -> UsageMetrics:
    return UsageMetrics(**{"model": "m", **usage})


def named(breakdown: CostBreakdown) -> dict[str, tuple[int, Decimal]]:
    return {name: (quantity, amount) for name, quantity, amount in breakdown.components}


@pytest.mark.parametrize(
    ("text", "usage", "expected"),
    [
        # A bucket that the expression does not mention is counted in the nearest one that it does.
        ("input_tokens * 2", {"input_tokens": 1, "cache_read_tokens": 10, "cache_write_1h_tokens": 100}, 222),
        ("input_tokens * 2", {"input_audio_tokens": 10, "input_image_tokens": 1}, 22),
        ("input_tokens + cache_write_tokens * 5", {"cache_write_1h_tokens": 2, "cache_read_tokens": 1}, 11),
        ("output_tokens * 3", {"reasoning_tokens": 1, "output_audio_tokens": 1, "output_image_tokens": 1}, 9),
        ("output_tokens * 3 + reasoning_tokens", {"output_tokens": 1, "reasoning_tokens": 4}, 7),
        ("(input_tokens + cache_read_tokens) * 2", {"input_tokens": 1, "cache_read_tokens": 1}, 4),
        # A side that it does not mention at all is not part of the price.
        ("1000", {"input_tokens": 50, "output_tokens": 50, "cache_read_tokens": 3}, 1000),
        ("output_tokens * 3", {"input_tokens": 50, "cache_read_tokens": 50, "output_tokens": 1}, 3),
        ("cache_write_tokens", {"input_tokens": 9, "cache_write_1h_tokens": 2}, 2),
        ("if(model == 'm' and service_tier == '', 1, 0)", {}, 1),
        ("tool_calls * 7", {"tool_calls": (ToolCall(name="a"), ToolCall(name="b"))}, 14),
    ],
)
def test_expression_folds_what_it_does_not_mention(text: str, usage: dict[str, Any], expected: int) -> None:
    assert engine(text).calculate(used(**usage)).total == expected


@pytest.mark.parametrize("model", ["input_tokens * 2", {"input": 2_000_000}])
def test_buckets_of_cache_expressions_are_paid_there_alone(model: Any) -> None:
    prices = engine(model, cache={"r": "cache_read_tokens * 10", "w": "cache_write_tokens * 100"})
    result = prices.calculate(used(input_tokens=1, cache_read_tokens=1, cache_write_1h_tokens=1))
    assert result.total == 2 + 10 + 100
    assert named(result)["cache.w"] == (1, 100)
    both = engine(model, cache={"w": "cache_write_tokens * 100 + cache_write_1h_tokens * 1000"})
    assert both.calculate(used(cache_write_1h_tokens=1, cache_read_tokens=1)).total == 1000 + 2
    # Without cache tokens the expressions are not looked at.
    flat = engine(model, cache={"flat": "50"})
    assert flat.calculate(used(input_tokens=1)).total == 2
    assert flat.calculate(used(cache_read_tokens=1)).total == 52


def test_model_that_prices_one_hour_writes_itself_keeps_them_from_the_cache_expressions() -> None:
    prices = engine({"input": 0, "cache_write_1h": 7_000_000}, cache={"w": "cache_write_tokens * 100"})
    assert prices.calculate(used(cache_write_1h_tokens=1)).total == 7


def test_tools_are_priced_for_each_call_of_the_name() -> None:
    calls = tuple(ToolCall(name=name) for name in ("web", "web", "mine"))
    prices = engine("0", tools={"web": "10 + input_tokens"})
    result = prices.calculate(used(tool_calls=calls, input_tokens=5))
    assert named(result) == {"model": (1, 0), "tools.web": (2, 30)}
    with_default = engine("0", tools={"web": "10", "_default": "1.5"})
    assert with_default.calculate(used(tool_calls=calls)).exact == Decimal("21.5")


@pytest.mark.parametrize("field", ["search_queries", "search_results", "web_search_calls"])
def test_search_expressions_are_added_when_something_was_searched(field: str) -> None:
    prices = engine("0", search={"a": f"{field} * 10", "b": "3"})
    assert prices.calculate(used(**{field: 2})).total == 23
    assert prices.calculate(used(input_tokens=2)).total == 0


def test_fixed_job_costs_what_the_plan_or_the_config_says() -> None:
    prices = engine("5", fixed={"report": 500}, plans={"pro": {"per_operation": {"report": 100, "own": 7}}})
    alone = UsageMetrics(fixed_job="report", input_tokens=5)
    assert prices.calculate(alone).total == 500
    assert prices.calculate(alone).model is None
    assert prices.calculate(alone, "pro").total == 100
    assert prices.calculate(UsageMetrics(fixed_job="own"), "pro").total == 7
    assert named(prices.calculate(used(fixed_job="report"))) == {"model": (1, 5), "fixed.report": (1, 500)}
    with pytest.raises(UnknownModelError, match="did you mean 'report'"):
        prices.calculate(UsageMetrics(fixed_job="reprot"))


def test_use_without_a_model_is_refused_unless_there_is_a_default() -> None:
    prices = engine(search={"s": "search_queries"})
    assert prices.calculate(UsageMetrics(search_queries=3)).total == 3
    assert prices.calculate(UsageMetrics()).total == 0
    for usage in ({"input_tokens": 1}, {"output_tokens": 1}, {"image_count": 1}, {"audio_milliseconds": 1}):
        with pytest.raises(UnknownModelError, match="names no model"):
            prices.calculate(UsageMetrics(**usage))
    default = PricingEngine(parse_pricing({"models": {"_default": "9"}}))
    assert default.calculate(UsageMetrics(input_tokens=1)).total == 9
    assert default.calculate(UsageMetrics()).total == 0
    with pytest.raises(UnknownModelError):
        prices.calculate(UsageMetrics(model=""))


@pytest.mark.parametrize(
    ("text", "up", "half_up"),
    [
        ("0", 0, 0),
        ("0.000001", 1, 0),
        ("1.4", 2, 1),
        ("1.5", 2, 2),
        ("2.5", 3, 3),
        ("3", 3, 3),
        ("-7.5", 0, 0),
    ],
)
def test_total_is_rounded_once_and_never_negative(text: str, up: int, half_up: int) -> None:
    assert engine(text).calculate(used()).total == up
    assert engine(text, rounding="half_up").calculate(used()).total == half_up
    assert engine(text).calculate(used()).exact == Decimal(text)


def test_sum_is_rounded_not_its_parts() -> None:
    prices = engine({"input": 400_000, "output": 400_000}, search={"s": "0.2"}, fixed={"j": 1})
    result = prices.calculate(used(input_tokens=1, output_tokens=1, search_queries=1, fixed_job="j"))
    assert (result.exact, result.total) == (Decimal("2.0"), 2)


def test_a_discount_may_be_a_negative_component() -> None:
    result = engine("10", tools={"coupon": "-4"}).calculate(used(tool_calls=(ToolCall(name="coupon"),)))
    assert named(result)["tools.coupon"] == (1, -4)
    assert result.total == 6


def test_the_largest_total() -> None:
    assert engine(str(MAX_AMOUNT)).calculate(used()).total == MAX_AMOUNT
    for text in (str(MAX_AMOUNT + 1), f"{MAX_AMOUNT}.1", "1e100 * 1e100"):
        with pytest.raises(PricingError, match="above"):
            engine(text).calculate(used())
    with pytest.raises(PricingError, match="above"):
        engine({"input": 10**15}).calculate(used(input_tokens=MAX_AMOUNT))


def test_fault_of_an_evaluation_is_an_expression_error() -> None:
    with pytest.raises(ExpressionError, match="division by zero"):
        engine("1 / input_tokens").calculate(used())


def test_breakdown_says_what_priced_the_call() -> None:
    prices = engine(
        {"unit": "usd", "input": 2.5, "cache_read": 1.25, "output": 10},
        version="7",
        plans={"pro": {"rate_overrides": {"m": "1"}}},
    )
    metrics = used(model="openai/m", input_tokens=3, cache_read_tokens=1, reasoning_tokens=2)
    result = prices.calculate(metrics)
    assert (result.model, result.plan_id, result.pricing_version, result.total) == ("m", None, "7", 29)
    assert result.exact == Decimal("28.75")
    assert result.components == (
        CostComponent("input_tokens", 3, Decimal("7.5")),
        CostComponent("cache_read_tokens", 1, Decimal("1.25")),
        CostComponent("reasoning_tokens", 2, Decimal(20)),
    )
    assert prices.calculate(metrics, "pro").plan_id == "pro"
    assert prices.calculate(metrics, PlanDefinition(id="gone")).plan_id == "gone"
    again = prices.calculate(metrics)
    assert again == result
    assert hash(again) == hash(result)
    assert again != prices.calculate(metrics, "pro")
    assert pickle.loads(pickle.dumps(result)) == result
    assert "total=29" in repr(result)
    with pytest.raises(AttributeError):
        result.total = 0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ({"input": 1, "output": 10}, {"input_tokens": 5, "output_tokens": 1}, 15),
        ({"input": 1, "cache_write": 2, "output": 10}, {"input_tokens": 5, "output_tokens": 1}, 20),
        ({"input": 1, "output": 10, "reasoning": 30}, {"output_tokens": 2}, 60),
        ({"input": 1, "input_audio": 9, "output": 1}, {"input_tokens": 5, "output_tokens": 2}, 7),
        (
            {"input": 1, "input_audio": 9, "output": 1, "output_audio": 9},
            {"input_tokens": 5, "input_audio_tokens": 1},
            54,
        ),
        ({"input": 1, "tiers": [{"above": 4, "cache_write": 9}]}, {"input_tokens": 5}, 45),
        ({"input": 1, "tiers": [{"above": 5, "cache_write": 9}]}, {"input_tokens": 5}, 5),
    ],
)
def test_estimate_of_a_table_is_the_dearest_turn(model: Any, usage: dict[str, int], expected: int) -> None:
    table = {
        **{name: price * 1_000_000 for name, price in model.items() if isinstance(price, int)},
        "tiers": [{**tier, "cache_write": tier["cache_write"] * 1_000_000} for tier in model.get("tiers", [])],
    }
    assert engine(table).estimate(used(**usage)) == expected


def test_estimate_of_expressions() -> None:
    text = "input_tokens + cache_write_1h_tokens * 3 + output_tokens + reasoning_tokens * 5"
    assert engine(text).estimate(used(input_tokens=10, output_tokens=1)) == 35
    cached = engine({"input": 1_000_000}, cache={"w": "cache_write_tokens * 2"})
    assert cached.estimate(used(input_tokens=10)) == 20
    assert engine("5 - input_tokens").estimate(used()) == 5
    assert engine(fixed={"j": 9}).estimate(UsageMetrics(fixed_job="j")) == 9
    assert engine(search={"s": "3"}).estimate(UsageMetrics(search_queries=1)) == 3


def test_one_hour_writes_of_a_fixed_job_are_counted_once_by_the_cache_expressions() -> None:
    job = UsageMetrics(fixed_job="j", cache_write_1h_tokens=1)
    split = engine(fixed={"j": 5}, cache={"w": "cache_write_tokens * 10 + cache_write_1h_tokens * 100"})
    assert split.calculate(job).total == 105
    joint = engine(fixed={"j": 5}, cache={"w": "cache_write_tokens * 10"})
    assert joint.calculate(job).total == 15
