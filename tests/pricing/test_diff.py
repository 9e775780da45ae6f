"""What a review before a publish is shown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ducto.models.pricing import PricingConfigData
from ducto.pricing.diff import PricingDiff, ValueChange, diff_pricing


def diff(old: dict[str, Any], new: dict[str, Any]) -> PricingDiff:
    return diff_pricing(PricingConfigData.model_validate(old), PricingConfigData.model_validate(new))


def models(old: Any, new: Any) -> list[ValueChange]:
    """The changes of one model."""
    found = diff({"models": {"m": old}}, {"models": {"m": new}})
    assert len(found.models_changed) <= 1
    return [change for model in found.models_changed for change in model.changes]


def test_models_and_plans_that_come_and_go() -> None:
    found = diff(
        {"models": {"z": "1", "kept": "1", "b": "2"}, "plans": {"old": {}, "same": {}}},
        {"models": {"kept": "1", "d": "4", "c": "3"}, "plans": {"new": {}, "same": {}}},
    )
    assert (found.models_added, found.models_removed, found.models_changed) == (("c", "d"), ("b", "z"), ())
    assert (found.plans_added, found.plans_removed, found.plans_changed) == (("new",), ("old",), ())
    assert list(found.lines()) == ["+ model c", "+ model d", "- model b", "- model z", "+ plan new", "- plan old"]


def test_changed_rates_are_told_with_old_and_new() -> None:
    assert models(
        {"input": "2.50", "output": 10, "cache_read": 1, "max_output_tokens": 5},
        {"input": 2, "output": 10, "reasoning": 7, "max_output_tokens": 5},
    ) == [("input", Decimal("2.5"), 2), ("reasoning", None, 7), ("cache_read", 1, None)]


def test_tiers_and_variants_are_told_by_threshold_and_conditions() -> None:
    old = {"input": 1, "tiers": [{"above": 9, "input": 2}, {"above": 5, "input": 3}]}
    new = {
        "input": 1,
        "tiers": [{"above": 5, "input": 3}, {"above": 9, "input": 4}],
        "variants": {"speed=fast": {"input": 6, "tiers": [{"above": 9, "input": 7}]}},
    }
    assert models(old, new) == [
        ("tiers[9].input", 2, 4),
        ("variants[speed=fast].input", None, 6),
        ("variants[speed=fast].tiers[9].input", None, 7),
        ("variants[speed=fast].tiers[9].above", None, 9),
    ]


def test_a_tier_without_rates_counts() -> None:
    """It ends the tier below it."""
    assert models({"input": 1}, {"input": 1, "tiers": [{"above": 9}]}) == [("tiers[9].above", None, 9)]


def test_tables_and_expressions() -> None:
    assert models("1", "2") == [("expression", "1", "2")]
    assert models({"unit": "usd", "input": 1}, "2") == [
        ("expression", None, "2"),
        ("input", 1, None),
        ("unit", "usd", None),
    ]


def test_what_means_the_same_is_no_difference() -> None:
    old = {"models": {"m": {"input": "1.0", "output": 2}, "n": "1"}, "markup": "1.0", "plans": {"p": {}}}
    new = {"plans": {"p": {"id": "p", "name": "p"}}, "models": {"n": "1", "m": {"output": 2, "input": 1}}}
    found = diff(old, new)
    assert not found
    assert list(found.lines()) == []


def test_plans_and_settings() -> None:
    found = diff(
        {
            "models": {"m": "1"},
            "plans": {"p": {"free_allowance": 1, "features": ["a"], "rate_overrides": {"m": {"input": 2}}}},
            "aliases": {"gone": "m"},
            "signup_bonus": 1,
        },
        {
            "models": {"m": "1"},
            "plans": {"p": {"free_allowance": 2, "features": ["a", "b"], "rate_overrides": {"m": {"input": 3}}}},
            "aliases": {"new": "m"},
            "markup": "1.30",
            "default_plan": "p",
            "signup_bonus": 1,
        },
    )
    assert found
    assert list(found.lines()) == [
        "~ default_plan (none) -> p",
        "~ markup 1 -> 1.3",
        "~ aliases.new (none) -> m",
        "~ aliases.gone m -> (none)",
        "~ plan p: free_allowance 1 -> 2",
        "~ plan p: features a -> a, b",
        "~ plan p: rate_overrides.m.input 2 -> 3",
    ]


@pytest.mark.parametrize("field", sorted(PricingConfigData.model_fields.keys() - {"version"}))
def test_every_field_of_a_config_is_compared(field: str) -> None:
    values: dict[str, Any] = {
        "models": {"x": "1"},
        "tools": {"x": "1"},
        "search": {"x": "1"},
        "cache": {"x": "1"},
        "fixed": {"x": 1},
        "min_balance": 77,
        "plans": {"x": {}},
        "default_plan": "p",
        "signup_bonus": 77,
        "credits_per_usd": 77,
        "markup": 77,
        "rounding": "half_up",
        "aliases": {"x": "y"},
    }
    base: dict[str, Any] = {"plans": {"p": {}}}
    assert diff(base, {**base, field: values[field]})
