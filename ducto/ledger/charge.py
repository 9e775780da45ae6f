"""Charge: reserve and deduct in one step, against what nobody holds."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from ducto import arguments
from ducto.ledger.admission import Admission, Party, account_of, admit, allowance_left, party_of, plan_for
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, spend_free
from ducto.ledger.spending import book as book_spend
from ducto.ledger.spending import check_notes, check_overflow, warning_of
from ducto.ledger.state import Book
from ducto.ledger.windows import month_of
from ducto.models import DeductionResult, Metadata
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["charge"]


def charge(
    book: Book,
    clock_now: datetime,
    user_id: str,
    amount: int,
    operation_type: str,
    metadata: Metadata,
    *,
    team_id: str | None,
    idempotency_key: str | None,
    min_balance: int,
    force: bool,
    model: str | None,
    feature: str | None,
    usage: UsageMetrics | None,
    estimated: bool,
    pricing_version: str | None,
) -> DeductionResult:
    arguments.check_amount(amount)
    arguments.check_id(user_id)
    arguments.check_key(idempotency_key)
    arguments.check_id(operation_type, name="operation_type")
    arguments.check_optional_id(team_id, name="team_id")
    arguments.check_optional_id(feature, name="feature")
    arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
    notes = check_notes(usage, estimated, model, pricing_version, metadata)

    account, acting = account_of(book, user_id, team_id)
    now = time_for(account, clock_now)
    compared = (amount, model)
    earlier = recall(account, acting, "charge", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(DeductionResult, earlier))
    work = begin(account, now)
    party = party_of(work, user_id)
    if force:
        admission = _unconditional(book, party, now, amount)
    else:
        admission = admit(book, party, now, amount, min_balance=min_balance, model=model, feature=feature)
    check_overflow(party, now, model, admission.money, amount)

    account = commit(book, work, now)
    party = party._replace(account=account)
    deltas = Deltas()
    spend_free(account, admission.money, deltas)
    row = book_spend(
        party,
        "charge",
        deltas,
        now,
        booked_at=now,
        actual=amount,
        charged=amount,
        allowance=admission.allowance,
        notes=notes,
        operation_type=operation_type,
        plan_id=admission.plan_id,
        forced=force,
        floor=min_balance,
        key=idempotency_key,
        **warning_of(admission.findings),
    )
    balance = account.balance
    reply = DeductionResult(
        transaction_id=row.transaction_id,
        user_id=user_id,
        team_id=team_id,
        amount=admission.money,
        actual=amount,
        allowance_consumed=admission.allowance,
        balance_after=balance,
        available=balance - account.held,
        **warning_of(admission.findings),
    )
    remember(account, acting, "charge", idempotency_key, compared, reply)
    return reply


def _unconditional(book: Book, party: Party, now: datetime, amount: int) -> Admission:
    """A forced charge asks nobody, but the allowance still pays first."""
    plan = plan_for(book, party)
    allowance = min(amount, allowance_left(party.account, plan, month_of(now)))
    return Admission(allowance, amount - allowance, plan.id if plan else None, None)
