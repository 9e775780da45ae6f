"""Rate tables: units, folding, tiers, variants; and every price against plain fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto.errors import PricingConfigError
from ducto.pricing import PricingEngine, parse_pricing
from ducto.usage import UsageMetrics

MILLION = 1_000_000


def engine(table: dict[str, Any], **config: Any) -> PricingEngine:
    return PricingEngine(parse_pricing({"models": {"m": table}, **config}))


def cost(table: dict[str, Any], config: dict[str, Any] | None = None, **usage: Any) -> Decimal:
    return engine(table, **(config or {})).calculate(UsageMetrics(model="m", **usage)).exact


@pytest.mark.parametrize(
    ("field", "rate"),
    [
        ("input_tokens", "input"),
        ("cache_read_tokens", "cache_read"),
        ("cache_write_tokens", "cache_write"),
        ("cache_write_1h_tokens", "cache_write_1h"),
        ("input_audio_tokens", "input_audio"),
        ("input_image_tokens", "input_image"),
        ("output_tokens", "output"),
        ("reasoning_tokens", "reasoning"),
        ("output_audio_tokens", "output_audio"),
        ("output_image_tokens", "output_image"),
    ],
)
def test_own_price_of_each_bucket(field: str, rate: str) -> None:
    table = {"input": 1, "output": 2, rate: 7 * MILLION}
    assert cost(table, **{field: 3}) == 21


@pytest.mark.parametrize(
    ("stated", "field", "expected"),
    [
        ({}, "cache_read_tokens", 1),
        ({}, "cache_write_tokens", 1),
        ({}, "cache_write_1h_tokens", 1),
        ({"cache_write": 5}, "cache_write_1h_tokens", 5),
        ({"cache_write": 5}, "cache_read_tokens", 1),
        ({}, "input_audio_tokens", 1),
        ({}, "input_image_tokens", 1),
        ({}, "reasoning_tokens", 10),
        ({}, "output_audio_tokens", 10),
        ({}, "output_image_tokens", 10),
        ({"cache_read": 0}, "cache_read_tokens", 0),
    ],
)
def test_bucket_without_a_price_folds_into_its_parent(stated: dict[str, int], field: str, expected: int) -> None:
    table = {name: rate * MILLION for name, rate in {"input": 1, "output": 10, **stated}.items()}
    assert cost(table, **{field: 4}) == 4 * expected


def test_output_without_a_price_is_priced_as_input() -> None:
    assert cost({"input": 2 * MILLION}, output_tokens=3, reasoning_tokens=1) == 8


def test_units() -> None:
    table = {"per_request": 100, "per_image": 7, "per_audio_minute": 60, "per_1m_characters": MILLION}
    used = {"requests": 2, "image_count": 3, "audio_milliseconds": 1_500, "input_characters": 11}
    assert cost(table, **used) == Decimal("200") + 21 + Decimal("1.5") + 11
    # Tokens of a table that prices only units are part of the unit.
    assert cost(table, input_tokens=MILLION) == 100


def test_searches_are_paid_beside_the_tokens() -> None:
    table = {"input": MILLION, "output": MILLION, "per_web_search": 10, "per_search_query": 3}
    assert cost(table, input_tokens=5, web_search_calls=2, search_queries=4) == 5 + 20 + 12
    prices = engine({**table, "per_search_query": None})
    parts = prices.calculate(UsageMetrics(model="m", web_search_calls=2, search_queries=4)).components
    assert [(part.name, part.quantity, part.amount) for part in parts] == [("web_search_calls", 2, 20)]
    # A search alone does not make a model of the default price pay.
    assert engine({"input": MILLION}).calculate(UsageMetrics(web_search_calls=2)).total == 0


def test_a_minute_that_no_decimal_can_divide_is_still_rounded_from_the_exact_sum() -> None:
    prices = engine({"per_audio_minute": 1})
    result = prices.calculate(UsageMetrics(model="m", audio_milliseconds=20_000))
    assert result.exact == Decimal("0." + "3" * 50)
    assert prices.calculate(UsageMetrics(model="m", audio_milliseconds=180_000)).total == 3


def test_usd_takes_credits_per_usd_and_markup_and_credits_take_neither() -> None:
    config = {"credits_per_usd": 1000, "markup": "1.2"}
    assert cost({"unit": "usd", "input": 5, "output": 1}, config, input_tokens=MILLION) == 6000
    assert cost({"unit": "credits", "input": 5, "output": 1}, config, input_tokens=MILLION) == 5
    assert cost({"unit": "usd", "per_request": 1}, config) == 1200


def test_a_float_of_yaml_is_what_was_typed() -> None:
    assert cost({"unit": "usd", "input": 0.1, "output": 0.3}, input_tokens=3, output_tokens=1) == Decimal("0.6")


TIERED = {
    "input": 1 * MILLION,
    "cache_read": 2 * MILLION,
    "output": 10 * MILLION,
    "tiers": [
        {"above": 200, "input": 5 * MILLION},
        {"above": 100, "input": 3 * MILLION, "output": 20 * MILLION},
    ],
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 100, "output_tokens": 1}, 100 + 10),
        ({"input_tokens": 101, "output_tokens": 1}, 303 + 20),
        ({"input_tokens": 60, "cache_read_tokens": 41}, 180 + 82),
        ({"input_tokens": 1, "cache_write_1h_tokens": 200}, 5 + 1000),
        ({"input_tokens": 201, "output_tokens": 1}, 1005 + 10),
        ({"output_tokens": 500}, 5000),
    ],
)
def test_tier_prices_all_tokens_of_the_call_by_all_of_its_input(usage: dict[str, int], expected: int) -> None:
    assert cost(TIERED, **usage) == expected


VARIED = {
    "input": 8 * MILLION,
    "output": 80 * MILLION,
    "tiers": [{"above": 100, "input": 16 * MILLION, "output": 160 * MILLION}],
    "variants": {
        "speed=fast": {"input": 40 * MILLION},
        "service_tier=flex": {"input": 4 * MILLION, "tiers": [{"above": 50, "input": 6 * MILLION}]},
        "service_tier=flex, speed=fast": {"input": 20 * MILLION},
    },
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, 8 + 80),
        ({"service_tier": "default"}, 8 + 80),
        ({"service_tier": "flex"}, 4 + 80),
        ({"speed": "fast"}, 40 + 80),
        ({"service_tier": "flex", "speed": "fast"}, 20 + 80),
        ({"service_tier": "flex", "speed": "slow"}, 4 + 80),
        # Variant's tier, variant, table's tier, table: the first of them that states the rate.
        ({"service_tier": "flex", "input_tokens": 51}, 51 * 6 + 80),
        ({"service_tier": "flex", "input_tokens": 101}, 101 * 6 + 160),
        ({"speed": "fast", "input_tokens": 101}, 101 * 40 + 160),
    ],
)
def test_variants(usage: dict[str, Any], expected: int) -> None:
    assert cost(VARIED, **{"input_tokens": 1, "output_tokens": 1, **usage}) == expected


def test_of_two_variants_with_one_condition_the_service_tier_wins_however_they_are_ordered() -> None:
    variants = {"speed=fast": {"input": 1}, "service_tier=flex": {"input": 2 * MILLION}}
    for ordered in (variants, dict(reversed(variants.items()))):
        table = {"input": 9, "output": 9, "variants": ordered}
        assert cost(table, input_tokens=1, service_tier="flex", speed="fast") == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"^models\.m: states no price"),
        ({"max_output_tokens": 5}, "states no price"),
        ({"per_web_search": 5, "per_search_query": 5}, "states no price"),
        ({"output": 1}, "states 'output' but no 'input'"),
        ({"cache_read": 1}, "states 'cache_read' but no 'input'"),
        ({"per_image": 1, "output_audio": 1}, "states 'output_audio' but no 'input'"),
        (
            {"input": 1, "tiers": [{"above": 5}, {"above": 5}]},
            r"^models\.m\.tiers\[1\]\.above: 5 is there twice",
        ),
        ({"input": 1, "variants": {"flex": {}}}, r"^models\.m\.variants\.flex: write a variant as"),
        ({"input": 1, "variants": {"service_teir=flex": {}}}, "did you mean 'service_tier'"),
        ({"input": 1, "variants": {"speed=a,speed=b": {}}}, "'speed' is there twice"),
        ({"input": 1, "variants": {"speed=a": {}, " speed = a": {}}}, "same conditions"),
        (
            {"input": 1, "variants": {"speed=a": {"tiers": [{"above": 1}, {"above": 1}]}}},
            r"^models\.m\.variants\.speed=a\.tiers\[1\]\.above",
        ),
    ],
)
def test_faulty_table(table: dict[str, Any], message: str) -> None:
    with pytest.raises(PricingConfigError, match=message):
        engine(table)


PARENTS = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "input_audio": "input",
    "input_image": "input",
    "output": "input",
    "reasoning": "output",
    "output_audio": "output",
    "output_image": "output",
}
BUCKETS = ["input", *PARENTS]
PRICES = st.decimals(0, 1000, places=6)
COUNTS = st.integers(0, 10**6)


def plain_price(stated: dict[str, Decimal], usage: dict[str, int]) -> Fraction:
    """The rule in words: each bucket at its own price, or at the first of its ancestors that has one."""
    total = Fraction(0)
    for bucket in BUCKETS:
        owner = bucket
        while owner not in stated:
            owner = PARENTS[owner]
        total += usage[bucket] * Fraction(stated[owner]) / MILLION
    return total


@st.composite
def rates(draw: st.DrawFn, *, with_input: bool) -> dict[str, Decimal]:
    stated = draw(st.dictionaries(st.sampled_from(BUCKETS), PRICES))
    return {"input": draw(PRICES), **stated} if with_input else stated


@given(
    base=rates(with_input=True),
    tier=rates(with_input=False),
    above=st.integers(0, 3 * 10**6),
    usage=st.fixed_dictionaries(dict.fromkeys(BUCKETS, COUNTS)),
    usd=st.booleans(),
    markup=st.decimals("0.01", 9, places=2),
)
@settings(max_examples=300, deadline=None)
def test_quick_path_against_fractions_and_estimate_as_a_bound(
    base: dict[str, Decimal],
    tier: dict[str, Decimal],
    above: int,
    usage: dict[str, int],
    usd: bool,
    markup: Decimal,
) -> None:
    table = {**base, "unit": "usd" if usd else "credits", "tiers": [{"above": above, **tier}]}
    prices = engine(table, markup=markup, credits_per_usd=1234)
    metrics = UsageMetrics(model="m", **{f"{bucket}_tokens": count for bucket, count in usage.items()})
    side = BUCKETS[: BUCKETS.index("output")]
    reached = sum(usage[bucket] for bucket in side) > above
    expected = plain_price({**base, **tier} if reached else base, usage)
    if usd:
        expected *= 1234 * Fraction(markup)
    result = prices.calculate(metrics)
    assert Fraction(result.exact) == expected
    assert sum(component.amount for component in result.components) == result.exact
    assert result.total == ceil(expected)
    # However the text falls into buckets, it never costs more than the estimate from plain input and output.
    media = {bucket: count for bucket, count in usage.items() if bucket.endswith(("_audio", "_image"))}
    text = {bucket: count for bucket, count in usage.items() if bucket not in media}
    plain = UsageMetrics(
        model="m",
        input_tokens=sum(count for bucket, count in text.items() if bucket in side),
        output_tokens=sum(count for bucket, count in text.items() if bucket not in side),
        **{f"{bucket}_tokens": count for bucket, count in media.items()},
    )
    assert prices.estimate(plain) >= result.total
    assert prices.estimate(metrics) >= result.total
