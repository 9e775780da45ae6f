"""What a call costs, and why."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from ducto.pricing.buckets import SEARCH_COUNTS
from ducto.pricing.expression_lexer import MAX_DIGITS
from ducto.pricing.rate_tables import QUANTITY_FIELDS, RateRow

__all__ = ["CostBreakdown", "CostComponent", "exact_decimal"]

_ONLY_WITH_A_PRICE = frozenset({"requests", *SEARCH_COUNTS})
_CONTEXT = decimal.Context(prec=MAX_DIGITS)


class CostComponent(NamedTuple):
    """One part of a cost in credits. A negative amount is a discount that a config's expression gave."""

    name: str
    quantity: int
    amount: Decimal


def exact_decimal(value: Fraction) -> Decimal:
    """`value` exactly where a decimal can say it, else to 50 digits (a price per minute, taken per
    millisecond).
    """
    places = 0
    rest = value.denominator
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))
    return Decimal(f"{value.numerator * 10**places // value.denominator}E-{places}")


class CostBreakdown:
    """The cost of one call in credits: immutable, and two that say the same are equal.

    `total` is what to charge, rounded once from `exact` and never negative. `model` is the key of the config
    that priced the call, None where no model had a part in it. `components` and `exact` are worked out when
    they are asked for, because most calls are charged and never looked at.
    """

    __slots__ = (
        "_exact",
        "_extras",
        "_model",
        "_plan_id",
        "_pricing_version",
        "_quantities",
        "_row",
        "_total",
    )

    def __init__(
        self,
        *,
        total: int,
        exact: tuple[int, int],
        row: RateRow | None,
        quantities: tuple[int, ...],
        extras: tuple[CostComponent, ...],
        model: str | None,
        plan_id: str | None,
        pricing_version: str | None,
    ) -> None:
        self._total = total
        self._exact = exact
        self._row = row
        self._quantities = quantities
        self._extras = extras
        self._model = model
        self._plan_id = plan_id
        self._pricing_version = pricing_version

    @property
    def total(self) -> int:
        return self._total

    @property
    def model(self) -> str | None:
        return self._model

    @property
    def plan_id(self) -> str | None:
        return self._plan_id

    @property
    def pricing_version(self) -> str | None:
        return self._pricing_version

    @property
    def exact(self) -> Decimal:
        """The sum of the components before rounding."""
        return exact_decimal(Fraction(*self._exact))

    @property
    def components(self) -> tuple[CostComponent, ...]:
        """The counts that the model's table priced, then expressions, tools, searches and the fixed job.

        A count of a table is named as in `UsageMetrics`, the model's expression `model`, the others by their
        path in the config, such as `tools.web_search`.
        """
        row = self._row
        if row is None:
            return self._extras
        counted = zip(QUANTITY_FIELDS, self._quantities, row.rates, strict=True)
        priced = (
            CostComponent(name, quantity, exact_decimal(Fraction(quantity * rate, row.denominator)))
            for name, quantity, rate in counted
            # Every call is one request, and a search may be priced elsewhere: without a price neither is worth a line.
            if quantity and (rate or name not in _ONLY_WITH_A_PRICE)
        )
        return (*priced, *self._extras)

    def _facts(self) -> tuple[object, ...]:
        return (self._total, self.components, self._model, self._plan_id, self._pricing_version)

    def __eq__(self, other: object) -> bool:
        return self._facts() == other._facts() if isinstance(other, CostBreakdown) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._facts())

    def __repr__(self) -> str:
        return (
            f"CostBreakdown(total={self._total}, exact={self.exact}, model={self._model!r}, "
            f"plan_id={self._plan_id!r}, pricing_version={self._pricing_version!r}, "
            f"components={self.components})"
        )
