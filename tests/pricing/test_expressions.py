"""The expression language, construct by construct."""

from __future__ import annotations

from decimal import Decimal, getcontext

import pytest

from ducto.errors import ExpressionError
from ducto.pricing import evaluate_expression, validate_expression

VARIABLES: dict[str, int | Decimal | str] = {
    "a": 7,
    "b": 3,
    "zero": 0,
    "neg": -7,
    "half": Decimal("2.5"),
    "input_tokens": 1000,
    "output_tokens": 200,
    "model": "openai/gpt-4o-mini",
    "service_tier": "flex",
    "tool_calls": 2,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input_tokens * 2.5 + output_tokens * 10", "4500"),
        ("0.1 + 0.2", "0.3"),
        ("1 + 2 * 3 - 4 / 8", "6.5"),
        ("(1 + 2) * 3", "9"),
        ("10 - 3 - 2", "5"),
        ("16 / 4 / 2", "2"),
        ("-a + +b", "-4"),
        ("- - a", "7"),
        ("2 * -3", "-6"),
        ("-7 // 2", "-4"),
        ("neg // b", "-3"),
        ("7 // -3", "-3"),
        ("-7 % 3", "2"),
        ("7 % -3", "-2"),
        ("-6 % 3", "0"),
        ("7.5 // 2", "3"),
        ("-7.5 % 2", "0.5"),
        ("2 * 7 // 3 % 3", "1"),
        ("1e3 + 1_000 + .5 + 5.", "2005.5"),
        ("min(3, a, b)", "3"),
        ("max(3, a, b)", "7"),
        ("ceil(1.2)", "2"),
        ("ceil(-1.2)", "-1"),
        ("floor(1.8)", "1"),
        ("floor(-1.2)", "-2"),
        ("round(2.5)", "3"),
        ("round(3.5)", "4"),
        ("round(-2.5)", "-3"),
        ("round(2.345, 2)", "2.35"),
        ("round(1250, -2)", "1300"),
        ("round(7, 3)", "7"),
        ("clamp(5, 1, 3)", "3"),
        ("clamp(-5, 1, 3)", "1"),
        ("clamp(2, 1, 3)", "2"),
        ("tier(0, 10, 1, 20, 2, 3)", "1"),
        ("tier(9, 10, 1, 20, 2, 3)", "1"),
        ("tier(10, 10, 1, 20, 2, 3)", "2"),
        ("tier(20, 10, 1, 20, 2, 3)", "3"),
        ("tier(tier(a, 10, 1, 5), 2, 10, 20)", "10"),
        ("percentile(0, 4, 1, 3)", "1"),
        ("percentile(50, 4, 1, 3)", "3"),
        ("percentile(100, 4, 1, 3)", "4"),
        ("percentile(25, 1, 2, 3, 4)", "1.75"),
        ("percentile(90, 5)", "5"),
        ("if(a > b, 1, 2)", "1"),
        ("1 if a < b else 2", "2"),
        ("1 if a < b else 2 if a == 7 else 3", "2"),
        ("if(b < a <= 7 != 8, 1, 0)", "1"),
        ("if(1 < 3 > 2 == 2, 1, 0)", "1"),
        ("if(not a == b and 'mini' in model, 1, 0)", "1"),
        ("if('mini' not in model, 1, 0)", "0"),
        ("if(\"o\" in 'fo' in 'foo', 1, 0)", "1"),
        ("if(service_tier == 'flex', 0.5, 1)", "0.5"),
        ("if('it\\'s' == \"it's\", 1, 0)", "1"),
        ("if(model, 1, 0)", "1"),
        ("if(a > 1 or 5, 1, 0)", "1"),
        ("zero or a", "7"),
        ("b and a", "7"),
        ("if((a > b) == (b < a), 1, 0)", "1"),
        ("1 +\n\t2", "3"),
        ("tool_calls * 10", "20"),
        ("cache_read_tokens + 1", "1"),
        ("requests", "1"),
        # Only the part that decides is evaluated.
        ("1 if zero == 0 else a / zero", "1"),
        ("if(zero == 0, 1, a / zero)", "1"),
        ("if(zero != 0 and a / zero > 1, 1, 2)", "2"),
        ("if(zero == 0 or a / zero > 1, 1, 2)", "1"),
        ("tier(a, 10, 1, 20, a / zero, a / zero)", "1"),
    ],
)
def test_value(text: str, expected: str) -> None:
    assert evaluate_expression(text, VARIABLES) == Decimal(expected)


def test_fifty_digits_inside_and_the_callers_context_is_left_alone() -> None:
    before = getcontext().prec
    assert evaluate_expression("1 / 3", {}) == Decimal("0." + "3" * 50)
    assert getcontext().prec == before


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "found the end"),
        ("1 +", 3, "found the end"),
        ("1 2", 2, "expected an operator"),
        ("(1", 2, r"expected '\)'"),
        ("input_tokens ** 2", 13, "no power operator"),
        ("model.upper", 5, "attributes"),
        ("input_tokens[0]", 12, "subscripts"),
        ("a = 1", 2, "write =="),
        ("1 + §", 4, "unexpected character"),
        ("1 + 'open", 4, "not closed"),
        ("round()", 0, "1 to 2 arguments, not 0"),
        ("clamp(1, 2)", 0, "3 arguments, not 2"),
        ("1 + ceil(1, 2)", 4, "1 argument, not 2"),
        ("if(1, 2)", 0, "3 arguments, not 2"),
        ("tier(1, 2)", 0, "at least 4"),
        ("tier(1, 2, 3, 4, 5)", 0, "an even number"),
        ("min(1)", 0, "at least 2"),
        ("2 * min", 4, "needs its arguments"),
        ("if(model > 1, 1, 2)", 11, "text cannot be compared with a number"),
        ("if(1 == 'a', 1, 2)", 8, "number cannot be compared with a text"),
        ("if(1 in model, 1, 2)", 8, "looks for a text"),
        ("input_tokens > 5", 0, "condition"),
        ("1 + (input_tokens > 5)", 5, "condition"),
        ("model", 0, "this is a text"),
        ("model + 'a'", 0, "this is a text"),
        ("if(1, 'a', 2)", 11, "one branch is a text"),
        ("input_tokens > 5 and 10", 0, "condition"),
        ("1 / 0", 4, "division by zero"),
        ("1 // 0.0", 5, "division by zero"),
        ("round(1, 1.5)", 9, "whole number of places"),
        ("percentile(101, 1)", 11, "0 to 100"),
        ("1" * 51, 0, "50 digits"),
        ("1e999999999", 0, "too large"),
        ("1" + " " * 4000, 4000, "at most 4000"),
        ("(" * 65 + "1" + ")" * 65, 65, "64 deep"),
        ("-" * 65 + "1", 65, "64 deep"),
        ("+".join("1" * 900), 1001, "more than 1000 parts"),
    ],
)
def test_fault_is_found_at_publish_with_its_position(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        validate_expression(text)
    assert caught.value.position == position
    assert f"at position {position}" in str(caught.value)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("input_token * 2", "input_tokens"),
        ("1 + cache_reads_tokens", "cache_read_tokens"),
        ("clmp(1, 2, 3)", "clamp"),
        ("flor(1)", "floor"),
    ],
)
def test_did_you_mean(text: str, suggestion: str) -> None:
    with pytest.raises(ExpressionError, match=f"did you mean '{suggestion}'") as caught:
        validate_expression(text)
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize("name", ["speed", "fixed_job", "total_input_tokens", "abs", "__import__", "True", "c0"])
def test_only_the_counts_and_two_texts_can_be_read(name: str) -> None:
    with pytest.raises(ExpressionError, match="unknown name"):
        validate_expression(f"{name} + 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a / zero", "division by zero"),
        ("a // zero", "division by zero"),
        ("a % zero", "division by zero"),
        ("zero / zero", "not finite"),
        ("1e100 * 1e100 * 1e100 * 1e100 * 1e100 * 1e100 * 1e100 * 1e100 * 1e100 * 1e100", "not finite"),
        ("1e100 // b", "50 digits"),
        ("clamp(a, a, b)", "lower bound is above"),
        ("percentile(neg, 1)", "from 0 to 100"),
        ("round(a, half)", "whole number"),
        ("round(a, a * 10)", "whole number from -50 to 50"),
    ],
)
def test_fault_of_an_evaluation(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        evaluate_expression(text, VARIABLES)


@pytest.mark.parametrize("value", [True, 1.5, None, Decimal("NaN"), Decimal("Infinity")])
def test_variables_are_exact_and_finite(value: object) -> None:
    with pytest.raises(ExpressionError, match="variable 'x'"):
        evaluate_expression("x", {"x": value})  # type: ignore[dict-item]


def test_longest_legal_chain_and_deepest_legal_nesting() -> None:
    assert evaluate_expression("+".join("1" * 500), {}) == 500
    assert evaluate_expression("(" * 64 + "1" + ")" * 64, {}) == 1
    assert evaluate_expression("(" * 60 + "1" + "+1)" * 60, {}) == 61
