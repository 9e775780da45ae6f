"""The receipt of one transaction: what was counted, by which price, who paid which part, and what was held for it.

Pure: everything that a receipt is made of is handed in, as the store gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from ducto.errors import DuctoError
from ducto.ledger.windows import window_of
from ducto.models import (
    CapCheckResult,
    PlanDefinition,
    PricingConfigData,
    PricingConfigResult,
    RateTable,
    Reservation,
    SpendCap,
    TeamMember,
    Transaction,
)
from ducto.models.base import Row
from ducto.pricing import CostBreakdown, PricingEngine
from ducto.pricing.breakdown import exact_decimal
from ducto.pricing.buckets import TOKEN_BUCKETS

__all__ = ["CapInForce", "GrantMoved", "Hold", "PricedPart", "Pricing", "Receipt", "explain"]


class PricedPart(Row):
    """A count of the usage and what it cost, in credits, before rounding.

    `rate` is per 1,000,000 for tokens and per one for all else; `None` for an expression, which has no single rate.
    """

    name: str
    quantity: int
    rate: Decimal | None = None
    credits: Decimal


class Pricing(Row):
    """How the transaction was priced: worked out again from its usage, by the version that it records.

    `key` is the model, pattern or `_default` of the config that gave the price, `formula` its expression or table, of
    the plan where `from_plan`. `exact` is the sum of the parts, `price` that sum rounded to credits.
    """

    version_id: str
    version: int
    label: str | None = None
    plan_id: str | None = None
    from_plan: bool = False
    key: str | None = None
    formula: str | None = None
    parts: tuple[PricedPart, ...] = ()
    exact: Decimal
    price: int


class Hold(Row):
    """What was reserved for the call, against what it came to. `unused` went back, `overage` came on top.

    The facts of the reservation are `None` where the store has forgotten it (ended reservations are kept 30 days).
    """

    reservation_id: str
    reserved: int
    unused: int
    overage: int
    allowance_held: int | None = None
    policy: str | None = None
    min_balance: int | None = None
    max_settle: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None


class GrantMoved(Row):
    """What happened to one grant, which is credits that expire together: `grant` is its number in the account.

    `moved` is negative for what was burned of it (or expired), positive for what it got or got back. Of a settled
    call `held` is what the hold held of it, and `given_back` the part of that which was not burned; `None` where the
    store has forgotten the reservation, and for what no reservation held.
    """

    grant: int
    expires_at: datetime
    moved: int
    held: int | None = None
    given_back: int | None = None


class CapInForce(Row):
    """A cap as it is set now, and the window of it that the spend was booked in."""

    window: str
    limit: int
    action: str
    model: str | None = None
    window_start: datetime | None = None
    window_end: datetime | None = None


class Receipt(Row):
    """One transaction, explained. `remarks` are sentences on what was out of the ordinary, the first of them on what
    the transaction is.

    `charged` is `paid` from the balance and `allowance` together; `charged + unbilled` is `actual`. `refunded` is what
    a refund returned; that a spend was refunded later is no part of its row. The balance moved by `base`, on credits
    that do not expire, and by what `grants` moved.

    `caps` are those of today. `caps_exceeded` is what is recorded of the caps as they were when the call was admitted:
    those that it went over and that let it pass, with what their window had spent and held; a cap that it did not go
    over leaves no record.
    """

    transaction: Transaction
    pricing: Pricing | None = None
    actual: int
    charged: int
    allowance: int
    paid: int
    unbilled: int
    refunded: int
    base: int = 0
    grants: tuple[GrantMoved, ...] = ()
    hold: Hold | None = None
    caps_exceeded: tuple[CapCheckResult, ...] = ()
    caps: tuple[CapInForce, ...] = ()
    remarks: tuple[str, ...] = ()


def explain(
    transaction: Transaction,
    *,
    pricing: PricingConfigResult | None = None,
    plan: PlanDefinition | None = None,
    reservation: Reservation | None = None,
    caps: Sequence[SpendCap] = (),
    member: TeamMember | None = None,
) -> Receipt:
    """The receipt of `transaction`.

    `pricing` is the version that it records, `plan` the definition of the plan that it records, `reservation` the one
    that it settled, `caps` those of its user and `member` the user's membership in its team, both as they are now.
    What is `None` is left out of the receipt, and said to be where it was needed.
    """
    priced, fault = _priced(transaction, pricing, plan)
    return Receipt(
        transaction=transaction,
        pricing=priced,
        actual=transaction.actual,
        charged=transaction.charged,
        allowance=transaction.allowance_consumed,
        paid=transaction.charged - transaction.allowance_consumed,
        unbilled=transaction.unbilled,
        refunded=transaction.refunded,
        base=transaction.amount - sum(part.amount for part in transaction.grant_deltas),
        grants=tuple(_grants(transaction, reservation)),
        hold=_hold(transaction, reservation),
        caps_exceeded=tuple(_caps_exceeded(transaction, reservation)),
        caps=tuple(_caps(transaction, caps, member)),
        remarks=tuple(_remarks(transaction, priced=priced, fault=fault, reservation=reservation)),
    )


def _priced(
    transaction: Transaction, version: PricingConfigResult | None, plan: PlanDefinition | None
) -> tuple[Pricing | None, str | None]:
    """The price worked out again, or why it cannot be."""
    if transaction.usage is None:
        return None, None
    if version is None:
        return None, f"The pricing version {transaction.pricing_version!r} is not in the store."
    usage = transaction.usage
    if usage.model is None and transaction.model is not None:
        usage = usage.model_copy(update={"model": transaction.model})
    try:
        cost = PricingEngine(version.config, version=version.id).calculate(usage, plan)
    except DuctoError as error:
        return None, f"Its usage cannot be priced by the version that it records: {error}"
    from_plan = plan is not None and cost.model is not None and cost.model in plan.rate_overrides
    return (
        Pricing(
            version_id=version.id,
            version=version.version,
            label=version.label,
            plan_id=cost.plan_id,
            from_plan=from_plan,
            key=cost.model,
            formula=_formula(cost, version.config, plan if from_plan else None),
            parts=tuple(_parts(cost)),
            exact=cost.exact,
            price=cost.total,
        ),
        None,
    )


def _parts(cost: CostBreakdown) -> Iterator[PricedPart]:
    for part in cost.components:
        rate: Decimal | None = None
        if part.name in TOKEN_BUCKETS and part.quantity:
            rate = exact_decimal(Fraction(part.amount) * 1_000_000 / part.quantity)
        elif part.quantity and part.name != "model":
            rate = exact_decimal(Fraction(part.amount) / part.quantity)
        yield PricedPart(name=part.name, quantity=part.quantity, rate=rate, credits=part.amount)


def _formula(cost: CostBreakdown, config: PricingConfigData, plan: PlanDefinition | None) -> str | None:
    """The price of the model as the config states it."""
    if cost.model is None:
        return None
    price = (config.models if plan is None else plan.rate_overrides).get(cost.model)
    if isinstance(price, RateTable):
        if price.unit == "credits":
            return "rate table in credits per 1,000,000"
        markup = "" if config.markup == 1 else f" x markup {config.markup.normalize():f}"
        return f"rate table in usd per 1,000,000, x {config.credits_per_usd} credits per usd{markup}"
    return price


def _hold(transaction: Transaction, reservation: Reservation | None) -> Hold | None:
    if transaction.reservation_id is None or transaction.reserved is None:
        return None
    # A late call is charged on nothing held: its hold had ended.
    held = 0 if transaction.late else transaction.reserved
    facts = (
        {}
        if reservation is None
        else {
            "allowance_held": reservation.allowance_held,
            "policy": reservation.overage,
            "min_balance": reservation.min_balance,
            "max_settle": reservation.max_settle,
            "created_at": reservation.created_at,
            "expires_at": reservation.expires_at,
        }
    )
    return Hold.model_validate(
        {
            "reservation_id": transaction.reservation_id,
            "reserved": transaction.reserved,
            "unused": max(0, held - transaction.charged),
            "overage": max(0, transaction.charged - held),
            **facts,
        }
    )


def _grants(transaction: Transaction, reservation: Reservation | None) -> Iterator[GrantMoved]:
    """Those that the hold held, in the order in which they are burned, then those that moved besides."""
    # A late call is charged on nothing held: what its hold held had come free.
    parts = () if reservation is None or transaction.late else reservation.grant_holds
    moved = {part.grant: part for part in transaction.grant_deltas}
    for part in parts:
        delta = moved.pop(part.grant, None)
        burned = 0 if delta is None else -delta.amount
        yield GrantMoved(
            grant=part.grant,
            expires_at=part.expires_at,
            moved=-burned,
            held=part.amount,
            given_back=max(0, part.amount - max(0, burned)),
        )
    for part in moved.values():
        yield GrantMoved(grant=part.grant, expires_at=part.expires_at, moved=part.amount)


def _caps_exceeded(transaction: Transaction, reservation: Reservation | None) -> Iterator[CapCheckResult]:
    for admitted in (transaction, reservation):
        if admitted is not None:
            if admitted.cap_warning is not None:
                yield admitted.cap_warning
            yield from admitted.cap_notices


def _caps(transaction: Transaction, caps: Sequence[SpendCap], member: TeamMember | None) -> Iterator[CapInForce]:
    """Those that a spend like this one counts in: in a team the member's, else the user's own."""
    if not transaction.charged:
        return
    if member is not None and member.spend_cap is not None:
        yield CapInForce(window=member.spend_cap_window, limit=member.spend_cap, action="deny")
    if transaction.team_id is not None:
        return
    for cap in caps:
        if cap.model is None or cap.model == transaction.model:
            start, end = window_of(cap.cap_type, transaction.booked_at)
            yield CapInForce(
                window=cap.cap_type,
                limit=cap.limit,
                action=cap.action,
                model=cap.model,
                window_start=start,
                window_end=end,
            )


#: What a row is, by its type.
_SENTENCES = {
    "purchase": "Credits came in as a purchase.",
    "grant": "Credits came in as a grant.",
    "bonus": "Credits came in as a bonus.",
    "adjustment": "The balance was corrected by hand.",
    "deduction": "A reserved call was settled.",
    "charge": "A charge without a reservation.",
    "allowance": "Allowance of the month was booked as used; no money moved.",
    "refund": "A spend was returned to the account that had paid it.",
    "expiry": "Credits expired.",
    "debt_repayment": "Expiring credits that had come free repaid a debt; the balance did not change.",
    "transfer_out": "Credits were given to another user.",
    "transfer_in": "Credits came from another user.",
}


def _remarks(
    transaction: Transaction, *, priced: Pricing | None, fault: str | None, reservation: Reservation | None
) -> Iterator[str]:
    yield _SENTENCES[transaction.type]
    if transaction.team_id is not None and transaction.charged:
        yield "The team's pool paid: the member's own balance, allowance and caps were not touched."
    if transaction.estimated:
        yield "The provider told no usage, so the charge is an estimate."
    if transaction.late:
        yield "The hold had expired before the call was settled; it was charged all the same."
    if transaction.forced:
        yield "It was forced: booked without asking for funds or caps."
    yield from _unbilled(transaction, reservation)
    if transaction.type in ("deduction", "charge") and transaction.usage is None:
        yield "The amount was given in credits; no usage was recorded to price."
    if fault is not None:
        yield fault
    if priced is not None and priced.price != transaction.actual:
        yield (
            f"Its usage comes to {priced.price} credits by that version, but {transaction.actual} were booked: the "
            "amount was not taken from this usage."
        )
    if transaction.refunded_transaction_id is not None:
        yield f"It returned {transaction.refunded} credits of {transaction.refunded_transaction_id}."


def _unbilled(transaction: Transaction, reservation: Reservation | None) -> Iterator[str]:
    """Why less was charged than the call cost."""
    if transaction.suspect:
        yield "It cost more than the reservation's max_settle and was cut there, as a guard against wrong usage."
    elif transaction.unbilled and reservation is not None and reservation.overage == "clamp":
        yield "It was clamped: charged down to the reservation's min_balance, and not below."
    elif transaction.unbilled:
        yield "Not all of the cost was charged; the reservation that would say why is no longer kept."
