"""Pricing expressions: compiled once when a config is published, evaluated exactly at each call.

Numbers are `Decimal` with 50 significant digits. `+ - * / // %`, comparisons (chained as in Python), `and or
not`, `x if c else y`, `in` and `not in` on texts; the functions `min max ceil floor round if tier clamp
percentile`. `//` and `%` floor as Python's on ints; `round(x[, n])` is half-up, a tie going away from zero;
`tier(v, t1, r1, ..., default)` gives the rate of the first threshold that `v` is below. Of a condition, of
`and`, `or` and `tier` only what is needed is evaluated. A condition is not a number: count it with
`if(condition, 1, 0)`.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache

from ducto.errors import ExpressionError
from ducto.pricing.buckets import TOKEN_BUCKETS, home_of
from ducto.pricing.expression_compiler import Kind, build_function
from ducto.pricing.expression_lexer import MAX_DIGITS
from ducto.pricing.expression_parser import parse
from ducto.usage import COUNT_FIELDS, UsageMetrics

__all__ = ["BoundExpression", "Expression", "evaluate_expression", "validate_expression"]

#: Exponents past these mean nothing as a price, and would make integers of absurd size from a short text.
_CONTEXT = decimal.Context(
    prec=MAX_DIGITS,
    rounding=decimal.ROUND_HALF_EVEN,
    Emax=999,
    Emin=-999,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)

TEXT_NAMES = ("model", "service_tier")
METRIC_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(COUNT_FIELDS, "number"),
    **dict.fromkeys(TEXT_NAMES, "text"),
}


class Expression:
    """A compiled expression; `names` is what it reads. Raises `ExpressionError` for a faulty text."""

    __slots__ = ("_function", "names", "text")

    def __init__(self, text: str, kinds: Mapping[str, Kind] = METRIC_KINDS) -> None:
        self.text: str = text
        self.names: tuple[str, ...]
        try:
            self.names, self._function = build_function(text, parse(text), kinds)
        except (RecursionError, MemoryError):
            # The bounds of the parser are far below Python's, but the caller may be near its limit already.
            raise ExpressionError("the expression is nested too deeply", text=text, position=0) from None
        if not self.names:
            self.evaluate(())  # a constant that cannot be computed is a fault of the config

    def evaluate(self, values: tuple[Decimal | str, ...]) -> Decimal:
        """The price for the values of `names`, in their order. Raises `ExpressionError`."""
        # Setting the shared context directly is a third of the price of `localcontext`, which copies it.
        saved = decimal.getcontext()
        decimal.setcontext(_CONTEXT)
        try:
            # The plus sign rounds to the context also where a variable is returned as it is.
            return +self._function(*values)
        except ExpressionError as error:
            raise ExpressionError(f"{error}, in {self.text!r}", text=self.text) from None
        except ZeroDivisionError:
            raise ExpressionError(f"division by zero in {self.text!r}", text=self.text) from None
        except decimal.DecimalException:
            message = f"the result of {self.text!r} is not finite, or needs more than {MAX_DIGITS} digits"
            raise ExpressionError(message, text=self.text) from None
        finally:
            decimal.setcontext(saved)


class BoundExpression:
    """An expression together with how its values are read from `UsageMetrics`.

    `folded` says which buckets are counted in another one: bucket to the bucket that stands for it.
    """

    __slots__ = ("_evaluate", "_values", "names", "text")

    def __init__(self, expression: Expression, folded: Mapping[str, str] | None = None) -> None:
        self.text: str = expression.text
        self.names: tuple[str, ...] = expression.names
        self._evaluate = expression.evaluate
        self._values = _reader(expression.names, folded or {})

    def evaluate(self, metrics: UsageMetrics) -> Decimal:
        return self._evaluate(self._values(metrics))


def fold(names: tuple[str, ...], in_cache: frozenset[str]) -> dict[str, str]:
    """The buckets that an expression does not mention, each with the mentioned bucket that it is counted in.

    A side (input or output) of which the expression mentions no ancestor stays out: its author gave a price
    that does not depend on it, such as `"1000"` for each call. Buckets of the `cache` expressions are paid
    there.
    """
    folded: dict[str, str] = {}
    for bucket in TOKEN_BUCKETS:
        where, home = home_of(bucket, priced=names, in_cache=in_cache)
        if where == "model" and home != bucket:
            folded[bucket] = home
    return folded


def _reader(names: tuple[str, ...], folded: Mapping[str, str]) -> Callable[[UsageMetrics], tuple[Decimal | str, ...]]:
    """A function that reads `names`, all of them fields of `UsageMetrics`; made as code because each call
    runs it.
    """
    parts: list[str] = []
    for name in names:
        if name in TEXT_NAMES:
            parts.append(f"m.{name} or ''")
        elif name == "tool_calls":
            parts.append("D(len(m.tool_calls))")
        else:
            fields = [name, *(bucket for bucket, home in folded.items() if home == name)]
            parts.append(f"D({' + '.join(f'm.{field}' for field in fields)})")
    source = "lambda m: (" + "".join(f"{part}, " for part in parts) + ")"
    reader: Callable[[UsageMetrics], tuple[Decimal | str, ...]] = eval(
        source, {"__builtins__": {}, "D": Decimal, "len": len}
    )
    return reader


@lru_cache(maxsize=256)
def _compiled(text: str, extra: tuple[tuple[str, Kind], ...]) -> Expression:
    return Expression(text, {**METRIC_KINDS, **dict(extra)})


def _default(name: str) -> Decimal | str:
    if name in TEXT_NAMES:
        return ""
    default = UsageMetrics.model_fields[name].default if name != "tool_calls" else 0
    return Decimal(default)


def _value(name: str, value: object) -> Decimal | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ExpressionError(f"the variable {name!r} is {type(value).__name__}; give an int, a Decimal or a str")
    number = Decimal(value)
    if not number.is_finite():
        raise ExpressionError(f"the variable {name!r} is not finite")
    return number


def evaluate_expression(text: str, variables: Mapping[str, int | Decimal | str]) -> Decimal:
    """The value of `text`, exact to 50 digits.

    `variables` may hold names beyond those of `UsageMetrics`. A name of `UsageMetrics` that is missing has
    its default, as in metrics that do not state it. Raises `ExpressionError`.
    """
    values = {name: _value(name, value) for name, value in variables.items()}
    kinds: dict[str, Kind] = {name: "text" if isinstance(value, str) else "number" for name, value in values.items()}
    extra = tuple((name, kind) for name, kind in kinds.items() if METRIC_KINDS.get(name) != kind)
    expression = _compiled(text, extra)
    return expression.evaluate(tuple(values[name] if name in values else _default(name) for name in expression.names))


def validate_expression(text: str) -> None:
    """Raise `ExpressionError`, with position and suggestion, unless `text` can be published as a price."""
    Expression(text)
