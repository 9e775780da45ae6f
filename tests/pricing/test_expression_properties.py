"""Expressions against Python's own arithmetic, and arbitrary text against the promise of one error type."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ducto.errors import ExpressionError
from ducto.pricing import evaluate_expression, validate_expression

X, Y = 17, 4

#: A pair: the text for ducto, and the same for Python with every number a `Fraction`.
Pair = tuple[str, str]


def _number(value: str) -> Pair:
    return value, f"F('{value}')"


_LEAVES = st.one_of(
    st.integers(0, 999).map(lambda value: _number(str(value))),
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda parts: _number(f"{parts[0]}.{parts[1]:02}")),
    st.sampled_from([("x", "F(17)"), ("y", "F(4)")]),
)


def _grow(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def joined(parts: tuple[Pair, str, Pair]) -> Pair:
        (left, python_left), operator, (right, python_right) = parts
        return f"{left} {operator} {right}", f"{python_left} {operator} {python_right}"

    def conditional(parts: tuple[Pair, Pair, str, Pair, Pair]) -> Pair:
        a, b, operator, c, d = parts
        return (
            f"if({a[0]} {operator} {b[0]}, {c[0]}, {d[0]})",
            f"(({c[1]}) if ({a[1]} {operator} {b[1]}) else ({d[1]}))",
        )

    def call(parts: tuple[str, list[Pair]]) -> Pair:
        name, arguments = parts
        return tuple(f"{name}({', '.join(side)})" for side in zip(*arguments, strict=True))  # type: ignore[return-value]

    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(joined),
        inner.map(lambda pair: (f"({pair[0]})", f"({pair[1]})")),
        inner.map(lambda pair: (f"-({pair[0]})", f"-({pair[1]})")),
        st.tuples(inner, inner, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), inner, inner).map(conditional),
        st.tuples(st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=3)).map(call),
        st.tuples(st.sampled_from(["ceil", "floor", "round"]), st.lists(inner, min_size=1, max_size=1)).map(call),
    )


def _half_up(value: Fraction) -> Fraction:
    whole = (abs(value) + Fraction(1, 2)).__floor__()
    return Fraction(whole if value >= 0 else -whole)


_PYTHON = {
    "F": Fraction,
    "min": min,
    "max": max,
    "ceil": lambda value: Fraction(value.__ceil__()),
    "floor": lambda value: Fraction(value.__floor__()),
    "round": _half_up,
}


@given(st.recursive(_LEAVES, _grow, max_leaves=12))
@settings(max_examples=500, deadline=None)
def test_same_value_as_python(pair: Pair) -> None:
    text, python = pair
    try:
        expected = Fraction(eval(python, dict(_PYTHON)))
    except ZeroDivisionError:
        with pytest.raises(ExpressionError):
            evaluate_expression(text, {"x": X, "y": Y})
        return
    try:
        result = evaluate_expression(text, {"x": X, "y": Y})
    except ExpressionError as error:
        # `if` is lazy in both, but a literal zero divisor is refused wherever it stands.
        assert "division by zero" in str(error) or "50 digits" in str(error)  # noqa: PT017
        return
    # No division with `/` is in it, so that nothing has more than 50 digits and nothing is rounded.
    assert Fraction(result) == expected


@given(st.integers(-(10**9), 10**9), st.integers(-(10**4), 10**4).filter(bool))
def test_floor_division_and_modulo_are_those_of_ints(left: int, right: int) -> None:
    assert evaluate_expression("l // r", {"l": left, "r": right}) == left // right
    assert evaluate_expression("l % r", {"l": left, "r": right}) == left % right


_PIECES = st.sampled_from(
    [
        "(",
        ")",
        ",",
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "<",
        ">",
        "==",
        "!=",
        "in",
        "not",
        "and",
        "or",
        "if",
        "else",
        "**",
        ".",
        "1",
        "0",
        "2.5",
        "1e9",
        "input_tokens",
        "model",
        "'a'",
        '"',
        "'",
        "min(",
        "tier(",
        "round(",
        "if(",
        "percentile(",
        "clamp(",
        "[",
        "]",
        "=",
        "&",
        "\\",
        "\n",
        "é",
        "😀",
        "_",
        "__class__",
    ]
)


@given(st.one_of(st.text(max_size=80), st.lists(_PIECES, max_size=40).map(" ".join)))
@example("((" * 1500)
@example("not " * 900)
@example("1 if 1 else " * 200 + "1")
@example("-" * 3999)
@example("min(" * 900)
@example("1<" * 499 + "1")
@example("1 and " * 499 + "1")
@example("\ud800")
@settings(max_examples=600, deadline=None)
def test_any_text_is_a_price_or_an_expression_error(text: str) -> None:
    try:
        value = evaluate_expression(text, {})
    except ExpressionError:
        return
    assert isinstance(value, Decimal)
    assert value.is_finite()


def test_close_to_pythons_own_limit_of_recursion() -> None:
    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            validate_expression("(" * 60 + "1" + ")" * 60)

    for levels in range(500, 980, 10):
        try:
            descend(levels)
        except ExpressionError as error:
            assert "too deeply" in str(error)  # noqa: PT017
            return
        except RecursionError:
            return  # the test's own frames used the stack up before the parser was called
    pytest.fail("the limit was never reached")
