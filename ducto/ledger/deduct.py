"""Deduct: settle a reservation with what the call cost, once."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, cast

from ducto.arguments import check_amount, check_id, check_key
from ducto.errors import (
    AlreadySettledError,
    ExceedsReservationError,
    IdempotencyMismatchError,
    ReservationExpiredError,
    ReservationReleasedError,
)
from ducto.ledger.admission import allowance_left, plan_of
from ducto.ledger.cap_counters import exceeded_after
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.holds import locate, owned_hold
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, drop_empty, free_hold, settle_freed, spend_free, write_row
from ducto.ledger.spending import check_notes, check_overflow, count_spend
from ducto.ledger.state import Account, Book, Hold
from ducto.ledger.windows import month_of
from ducto.models import DeductionResult, Metadata
from ducto.models.base import unvalidated
from ducto.usage import UsageMetrics

__all__ = ["deduct"]

_new_result = unvalidated(DeductionResult)


class Bill(NamedTuple):
    """How a cost is paid: `from_hold` of what is held (allowance first), then more allowance, then free money."""

    from_hold: int
    extra_allowance: int
    extra_money: int
    suspect: bool


def deduct(
    book: Book,
    clock_now: datetime,
    user_id: str,
    reservation_id: str,
    amount: int,
    idempotency_key: str | None,
    metadata: Metadata,
    usage: UsageMetrics | None,
    estimated: bool,
    model: str | None,
    pricing_version: str | None,
) -> DeductionResult:
    check_amount(amount)
    check_id(user_id)
    check_key(idempotency_key)
    noted = check_notes(usage, model, pricing_version, metadata)

    account = locate(book, user_id, reservation_id)
    acting = "" if account.kind == "user" else user_id
    now = time_for(account, clock_now)
    compared = (amount, reservation_id, model)
    earlier = recall(account, acting, "deduct", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(DeductionResult, earlier))
    work = begin(account, now)
    hold = owned_hold(work, user_id, reservation_id)
    if hold.state == "settled":
        return _settled_before(hold, amount, idempotency_key)
    if hold.state == "released":
        raise ReservationReleasedError(
            f"The reservation {hold.id} was released. Where the call did cost something, charge it directly.",
            reservation_id=hold.id,
        )
    late = hold.state == "expired"
    bill = _bill(book, work, hold, amount, late=late)
    ran_on = hold.model if model is None else model
    member = work.members.get(user_id) if work.kind == "team" else None  # One who has left the team settles as well.
    overage = bill.extra_allowance + bill.extra_money
    charged = bill.from_hold + overage
    check_overflow(work, member, hold.created_at, ran_on, charged, charged)

    account = commit(book, work, now)
    deltas = Deltas()
    allowance = bill.extra_allowance
    if not late:
        held_allowance = min(bill.from_hold, hold.allowance_held)
        allowance += held_allowance
        free_hold(account, hold)
        _take_held(account, hold, bill.from_hold - held_allowance, deltas)
    if bill.extra_money:
        spend_free(account, bill.extra_money, deltas)
    count_spend(account, member, deltas, now, hold.created_at, ran_on, charged, allowance)
    row = write_row(
        account,
        deltas,
        "deduction",
        now,
        user_id=user_id,
        booked_at=hold.created_at,
        actual=amount,
        charged=charged,
        allowance=allowance,
        usage=usage,
        estimated=bool(estimated),
        model=ran_on,
        pricing_version=hold.pricing_version if pricing_version is None else pricing_version,
        metadata=noted,
        reservation_id=hold.id,
        reserved=hold.amount,
        operation_type=hold.operation_type,
        plan_id=hold.plan_id,
        late=late,
        suspect=bill.suspect,
        floor=hold.min_balance,
        key=idempotency_key,
    )
    settle_freed(account, hold, now)
    balance = account.balance
    findings = exceeded_after(account, hold.created_at, ran_on, overage=overage)
    reply = _new_result(
        transaction_id=row.transaction_id,
        reservation_id=hold.id,
        user_id=user_id,
        team_id=hold.team_id,
        amount=-row.amount,
        actual=amount,
        allowance_consumed=allowance,
        unbilled=amount - charged,
        overage=overage,
        balance_after=balance,
        available=balance - account.held,
        late=late,
        suspect=bill.suspect,
        cap_warning=None if findings is None else findings.warning,
        cap_notices=() if findings is None else findings.notices,
    )
    hold.state = "settled"
    hold.ended_at = now
    hold.transaction_id = row.transaction_id
    hold.settled_key = idempotency_key
    hold.settled_actual = amount
    hold.reply = reply
    remember(account, acting, "deduct", idempotency_key, compared, reply)
    return reply


def _settled_before(hold: Hold, amount: int, key: str | None) -> DeductionResult:
    """The reservation is its own key: without another one the same cost is a replay."""
    if key is not None and key != hold.settled_key:
        raise AlreadySettledError(
            f"The reservation {hold.id} was settled under another key, by {hold.transaction_id}.",
            transaction_id=hold.transaction_id,
            reservation_id=hold.id,
        )
    if amount != hold.settled_actual:
        raise IdempotencyMismatchError(
            f"The reservation {hold.id} was settled with {hold.settled_actual} credits, not {amount}.",
            mismatch=("amount",),
            transaction_id=hold.transaction_id,
        )
    return replayed(cast(DeductionResult, hold.reply))


def _bill(book: Book, work: Account, hold: Hold, actual: int, *, late: bool) -> Bill:
    """What of `actual` is charged and from where, by the policy that the reservation was admitted with."""
    reserved = 0 if late else hold.amount
    if actual > reserved and hold.overage == "reject":
        if late:
            raise ReservationExpiredError(f"The reservation {hold.id} has expired.", reservation_id=hold.id)
        raise ExceedsReservationError(
            f"{actual} credits exceed the {reserved} reserved; the reservation stays active.",
            limit=reserved,
            reservation_id=hold.id,
        )
    billable = min(actual, hold.max_settle)
    suspect = billable < actual
    beyond = billable - reserved
    if beyond <= 0:
        return Bill(billable, 0, 0, suspect)
    plan = plan_of(book, work)
    allowance = min(beyond, allowance_left(work, plan, month_of(hold.created_at)))
    money = beyond - allowance
    if hold.overage == "clamp":
        money = min(money, max(0, work.free - hold.min_balance))
    return Bill(reserved, allowance, money, suspect)


def _take_held(account: Account, hold: Hold, money: int, deltas: Deltas) -> None:
    """Spend what was held, in the order in which it was allocated. The hold has been taken out of the counters."""
    for grant_id, held in hold.grant_holds:
        taken = min(held, money)
        if taken > 0:
            account.grants[grant_id].remaining -= taken
            deltas.grant(grant_id, -taken)
            money -= taken
    account.base -= money
    deltas.base -= money
    if deltas.grants:
        drop_empty(account)
