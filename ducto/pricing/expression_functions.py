"""The functions of the expression language, on `Decimal` in the 50-digit context of `expression.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from ducto.errors import ExpressionError

__all__ = ["FUNCTIONS", "Function", "floor_divide", "modulo"]

_MAX_PLACES = 50
_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Function:
    """`run` is None for what is not a call once compiled: `tier` becomes a chain of conditions."""

    least: int
    most: int | None
    run: Callable[..., Decimal] | None

    def arity(self) -> str:
        if self.most is None:
            return f"at least {self.least} arguments"
        if self.least == self.most:
            return f"{self.least} argument{'s' if self.least != 1 else ''}"
        return f"{self.least} to {self.most} arguments"


def floor_divide(left: Decimal, right: Decimal) -> Decimal:
    """`//` as Python's on ints: towards negative infinity, where that of `Decimal` cuts off towards zero."""
    if not right:
        raise ZeroDivisionError  # `Decimal` says "invalid operation" here, as it does for too many digits
    quotient, remainder = divmod(left, right)
    return quotient - 1 if remainder and remainder.is_signed() != right.is_signed() else quotient


def modulo(left: Decimal, right: Decimal) -> Decimal:
    """`%` as Python's on ints: the sign of the divisor."""
    if not right:
        raise ZeroDivisionError
    remainder = left % right
    return remainder + right if remainder and remainder.is_signed() != right.is_signed() else remainder


def _ceil(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_CEILING)


def _floor(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_FLOOR)


def _round(value: Decimal, places: Decimal = Decimal(0)) -> Decimal:
    """To `places` decimals, which may be negative; a tie goes away from zero."""
    if places != places.to_integral_value() or abs(places) > _MAX_PLACES:
        raise ExpressionError(f"round(): the places are a whole number from -{_MAX_PLACES} to {_MAX_PLACES}")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -int(places):
        return value
    return value.quantize(Decimal((0, (1,), -int(places))), ROUND_HALF_UP)


def _clamp(value: Decimal, low: Decimal, high: Decimal) -> Decimal:
    if low > high:
        raise ExpressionError("clamp(): the lower bound is above the upper bound")
    return min(max(value, low), high)


def _percentile(percent: Decimal, *values: Decimal) -> Decimal:
    """Linear between the two nearest ranks, as numpy's default and SQL's `percentile_cont`."""
    if not 0 <= percent <= _HUNDRED:
        raise ExpressionError("percentile(): the first argument is from 0 to 100")
    ordered = sorted(values)
    rank = percent * (len(ordered) - 1) / _HUNDRED
    below = int(rank)
    if rank == below:
        return ordered[below]
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (rank - below)


FUNCTIONS: dict[str, Function] = {
    "min": Function(2, None, min),
    "max": Function(2, None, max),
    "ceil": Function(1, 1, _ceil),
    "floor": Function(1, 1, _floor),
    "round": Function(1, 2, _round),
    "clamp": Function(3, 3, _clamp),
    "percentile": Function(2, None, _percentile),
    "tier": Function(4, None, None),
}
