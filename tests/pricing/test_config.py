"""Reading, refusing and writing configs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ducto.errors import ConfigError, ExpressionError, PricingConfigError
from ducto.models.pricing import PlanDefinition, PricingConfigData, RateTable
from ducto.pricing import compile_pricing, load_pricing_file, parse_pricing

FULL: dict[str, Any] = {
    "version": 1,
    "models": {
        "gpt-4o": {
            "unit": "usd",
            "input": 2.5,
            "output": "10",
            "max_output_tokens": 16384,
            "tiers": [{"above": 200000, "input": 5}],
            "variants": {"service_tier=flex": {"input": 1.25, "tiers": [{"above": 9, "output": 1}]}},
        },
        "custom": "input_tokens * 2",
    },
    "tools": {"web": "10000"},
    "search": {"queries": "search_queries * 5"},
    "cache": {"read": "cache_read_tokens"},
    "fixed": {"report": 500},
    "min_balance": -10,
    "plans": {
        "pro": {
            "name": "Pro",
            "free_allowance": 1000,
            "features": ["vision"],
            "rate_overrides": {"custom": "1"},
            "max_concurrent": 4,
            "per_operation": {"report": 100},
        },
        "free": {"id": "free"},
    },
    "default_plan": "free",
    "signup_bonus": 100,
    "credits_per_usd": 1000,
    "markup": "1.1",
    "rounding": "half_up",
    "aliases": {"fast": "gpt-4o"},
}


def test_defaults() -> None:
    config = PricingConfigData()
    assert (config.version, config.min_balance, config.default_plan, config.signup_bonus) == (1, 5, None, 0)
    assert (config.credits_per_usd, config.markup, config.rounding) == (1_000_000, 1, "up")


def test_round_trips() -> None:
    config = parse_pricing(FULL)
    assert parse_pricing(config) is config
    assert parse_pricing(config.model_dump(mode="json")) == config
    assert parse_pricing(json.loads(config.model_dump_json())) == config
    assert parse_pricing(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
    compile_pricing(config)


def test_plan_id_and_name_are_filled_in() -> None:
    plans = parse_pricing(FULL).plans
    assert (plans["pro"].id, plans["pro"].name) == ("pro", "Pro")
    assert (plans["free"].id, plans["free"].name) == ("free", "free")
    assert PlanDefinition(id="x").name == "x"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2.5, "2.5"),
        (0.1, "0.1"),
        (1e-07, "0.0000001"),
        (3, "3"),
        ("2.50", "2.5"),
        (Decimal("0.3"), "0.3"),
        (0, "0"),
    ],
)
def test_prices_are_what_was_typed(given: Any, expected: str) -> None:
    assert RateTable(input=given).input == Decimal(expected)


@pytest.mark.parametrize(
    "price",
    [
        True,
        False,
        float("nan"),
        float("inf"),
        "NaN",
        "-1",
        -1,
        -0.5,
        "abc",
        [],
        "1e16",
        "1e-31",
        Decimal("-0.1"),
    ],
)
def test_what_is_no_price(price: Any) -> None:
    with pytest.raises(ValidationError):
        RateTable(input=price)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PricingConfigData().min_balance = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"models": {"gpt-4o": {"inptu": 1}}},
            r"^models\.gpt-4o\.inptu: there is no such field \(did you mean 'input'",
        ),
        (
            {"models": {"m": {"input": 1, "tiers": [{"above": 1}, {"above": -1}]}}},
            r"^models\.m\.tiers\[1\]\.above: ",
        ),
        ({"models": {"m": {"input": True}}}, r"^models\.m\.input: a price is a number"),
        ({"models": {"m": 5}}, r"^models\.m: "),
        ({"models": {"": "1"}}, "at least 1 character"),
        ({"plans": {"a": {"id": "b"}}}, r"plans\.a\.id is 'b'; write 'a'"),
        (
            {"plans": {"a": {"rate_overrides": {"m": {"unit": "eur"}}}}},
            r"^plans\.a\.rate_overrides\.m\.unit: ",
        ),
        ({"plans": {"a": {"free_allowance": 1.5}}}, r"^plans\.a\.free_allowance: "),
        ({"default_plan": "gone"}, "default_plan 'gone' is not one of the plans"),
        ({"markup": 0}, "1 means no markup"),
        ({"min_balance": True}, r"^min_balance: "),
        ({"credits_per_usd": 0}, r"^credits_per_usd: "),
        ({"fixed": {"job": -1}}, r"^fixed\.job: "),
        ({"version": 2}, r"^version: "),
        ({"modles": {}}, "did you mean 'models'"),
        ({"rounding": "down", "signup_bonus": -1}, r"signup_bonus: .*; rounding: "),
        ({"models": {str(n): {"input": -1} for n in range(50)}}, "and 40 more"),
    ],
)
def test_one_readable_error_for_a_faulty_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PricingConfigError, match=message):
        parse_pricing(change)


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_what_is_no_config_at_all(data: Any) -> None:
    with pytest.raises(PricingConfigError):
        parse_pricing(data)


@pytest.mark.parametrize(
    ("change", "path", "position", "suggestion"),
    [
        ({"models": {"m": "1 + input_token"}}, "models.m", 4, "input_tokens"),
        ({"tools": {"t": "1 +"}}, "tools.t", 3, None),
        ({"search": {"s": "search_querys"}}, "search.s", 0, "search_queries"),
        ({"cache": {"c": "model"}}, "cache.c", 0, None),
        ({"plans": {"p": {"rate_overrides": {"m": "flor(1)"}}}}, "plans.p.rate_overrides.m", 0, "floor"),
    ],
)
def test_faulty_expression_names_its_path(
    change: dict[str, Any], path: str, position: int, suggestion: str | None
) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_pricing(parse_pricing(change))
    assert str(caught.value).startswith(f"{path}: ")
    assert (caught.value.position, caught.value.suggestion) == (position, suggestion)


def test_files(tmp_path: Path) -> None:
    config = parse_pricing(FULL)
    as_json, as_yaml = tmp_path / "prices.json", tmp_path / "prices.yaml"
    as_json.write_text(json.dumps(FULL), encoding="utf-8")
    as_yaml.write_text(yaml.safe_dump(FULL), encoding="utf-8")
    assert load_pricing_file(as_json) == config
    assert load_pricing_file(str(as_yaml)) == config


def test_a_number_of_a_json_file_keeps_all_of_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"models": {"m": {"input": 0.12345678901234567890123}}}', encoding="utf-8")
    table = load_pricing_file(path).models["m"]
    assert isinstance(table, RateTable)
    assert table.input == Decimal("0.12345678901234567890123")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "a.json: "),
        ("a.json", '{"models": {"m": "1", "m": "2"}}', "the key 'm' is there twice"),
        ("a.json", "[]", "a.json: "),
        ("a.yaml", "models: [", "not YAML"),
        ("a.yml", "models:\n  m: '1'\n  m: '2'\n", "the key 'm' is there twice"),
        ("a.yaml", "", "a.yaml: "),
        ("a.yaml", "x: &a [*a]", "no such field"),
    ],
)
def test_faulty_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PricingConfigError, match=message):
        load_pricing_file(path)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.json, \.yaml"):
        load_pricing_file(tmp_path / "prices.toml")
