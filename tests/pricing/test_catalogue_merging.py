"""Laying imported prices over a config."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ducto.errors import PricingConfigError, UnknownModelError
from ducto.models.pricing import PricingConfigData, RateTable
from ducto.pricing import PricingEngine
from ducto.pricing.catalogue import ImportedPrices, merged
from ducto.usage import UsageMetrics


def config(**fields: Any) -> PricingConfigData:
    return PricingConfigData.model_validate(fields)


def table(**rates: Any) -> dict[str, Any]:
    return {"unit": "usd", "input": 1, **rates}


def cost(of: PricingConfigData, model: str, **usage: Any) -> int:
    return PricingEngine(of).calculate(UsageMetrics(model=model, input_tokens=1_000, **usage)).total


OWN = {
    "models": {"a": table(max_output_tokens=77), "house": "input_tokens * 3"},
    "tools": {"web_search": "10"},
    "fixed": {"job": 5},
    "plans": {"pro": {"rate_overrides": {"a": table(input="0.5")}, "free_allowance": 9}},
    "default_plan": "pro",
    "min_balance": 3,
    "signup_bonus": 4,
    "rounding": "half_up",
}


def test_models_are_replaced_and_everything_else_is_kept() -> None:
    own = config(**OWN)
    new = config(models={"a": table(input=2), "b": table(input=4)}, aliases={"bee": "b"})
    both = merged(own, ImportedPrices(new, "label", (), ()))
    assert set(both.models) == {"a", "b", "house"}
    assert (cost(both, "a"), cost(both, "b"), cost(both, "bee"), cost(both, "house")) == (2_000, 4_000, 4_000, 3_000)
    for name in set(PricingConfigData.model_fields) - {"models", "aliases"}:
        assert getattr(both, name) == getattr(own, name), name
    assert cost(own, "a") == 1_000


def test_a_limit_is_kept_where_the_import_has_none() -> None:
    own = config(**OWN)
    kept = merged(own, config(models={"a": table(input=2)})).models["a"]
    assert isinstance(kept, RateTable)
    assert (kept.input, kept.max_output_tokens) == (2, 77)
    replaced = merged(own, config(models={"a": table(max_output_tokens=88)})).models["a"]
    assert isinstance(replaced, RateTable)
    assert replaced.max_output_tokens == 88


def test_names_of_the_config_stay_what_they_are() -> None:
    own = config(models={"house": table(input=9), "taken": table(input=7)}, aliases={"gpt": "house"})
    new = config(models={"gpt": table(), "b": table(input=4)}, aliases={"taken": "b", "chat-gpt": "gpt", "bee": "b"})
    both = merged(own, new)
    assert cost(both, "gpt") == 9_000
    assert cost(both, "taken") == 7_000
    assert cost(both, "bee") == 4_000
    # It stood for a model that is not in the result, so it would now be the price of another.
    with pytest.raises(UnknownModelError):
        cost(both, "chat-gpt")


def test_markup_is_the_imports_where_the_config_has_no_dollars() -> None:
    new = config(models={"a": table()}, markup="1.3", credits_per_usd=10_000_000)
    both = merged(config(models={"house": "1"}), new)
    assert (both.markup, both.credits_per_usd) == (Decimal("1.3"), 10_000_000)
    assert cost(both, "a") == cost(new, "a") == 13_000


def test_rates_are_scaled_to_the_markup_of_the_config() -> None:
    own = config(models={"own": table()}, markup=2, credits_per_usd=500_000)
    tier = {"above": 10, "input": "0.8", "output": 3}
    new = config(
        models={
            "a": table(output=3, max_output_tokens=7, tiers=[tier], variants={"speed=fast": {"input": 5}}),
            "in-credits": {"input": 4},
            "expression": "input_tokens",
        },
        markup="1.3",
    )
    both = merged(own, new)
    assert (both.markup, both.credits_per_usd) == (2, 500_000)
    for usage in ({}, {"output_tokens": 100}, {"speed": "fast"}, {"cache_read_tokens": 1}):
        for model in ("a", "in-credits", "expression"):
            assert cost(both, model, **usage) == cost(new, model, **usage), (model, usage)
    assert cost(both, "own") == cost(own, "own")
    assert PricingEngine(both).max_output_tokens("a") == 7


def test_a_scaled_rate_that_is_not_exact_is_refused() -> None:
    own = config(plans={"p": {"rate_overrides": {"a": table()}}}, markup=3)
    with pytest.raises(PricingConfigError, match=r"models\.a: 1 dollars have no exact price"):
        merged(own, config(models={"a": table()}))


FEES = {"per_web_search": "0.01", "per_search_query": "0.02"}
SEARCHED = {"models": {"b": table(**FEES, variants={"speed=fast": {"input": 2}})}}


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, 30_000),
        ({"search": {"web": "web_search_calls * 7"}}, 20_007),
        ({"search": {"file": "search_queries * 7"}}, 10_007),
        ({"search": {"results": "search_results * 7"}}, 30_000),
        ({"tools": {"web_search": "9"}}, 9),
        ({"tools": {"_default": "9"}}, 9),
        ({"tools": {"my_function": "9"}}, 30_000),
    ],
)
def test_a_search_that_the_config_prices_is_not_charged_twice(own: dict[str, Any], kept: int) -> None:
    both = merged(config(**own), config(**SEARCHED))
    calls = ({"name": "web_search"},)
    for served in ({}, {"speed": "fast"}):
        searched = cost(both, "b", web_search_calls=1, search_queries=1, tool_calls=calls, **served)
        assert searched - cost(both, "b", **served) == kept
