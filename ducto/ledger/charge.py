"""Charge: reserve and deduct in one step, against what nobody holds."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from ducto import arguments
from ducto.ledger.admission import Admission, account_of, admit, allowance_left, member_of, plan_for
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, spend_free, write_row
from ducto.ledger.spending import check_notes, check_overflow, count_spend
from ducto.ledger.state import Account, Book, Member
from ducto.ledger.windows import month_of
from ducto.models import DeductionResult, Metadata
from ducto.models.base import unvalidated
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["charge"]

_new_result = unvalidated(DeductionResult)


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
    noted = check_notes(usage, model, pricing_version, metadata)

    account, acting = account_of(book, user_id, team_id)
    now = time_for(account, clock_now)
    compared = (amount, model)
    earlier = recall(account, acting, "charge", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(DeductionResult, earlier))
    work = begin(account, now)
    member = member_of(work, user_id)
    if force:
        admission = _unconditional(book, work, member, now, amount)
    else:
        admission = admit(book, work, member, now, amount, min_balance=min_balance, model=model, feature=feature)
    check_overflow(work, member, now, model, money=admission.money, charged=amount)

    account = commit(book, work, now)
    findings = admission.findings
    deltas = Deltas()
    spend_free(account, admission.money, deltas)
    count_spend(
        account, member, deltas, now, admitted_at=now, model=model, charged=amount, allowance=admission.allowance
    )
    row = write_row(
        account,
        deltas,
        "charge",
        now,
        user_id=user_id,
        actual=amount,
        charged=amount,
        allowance=admission.allowance,
        usage=usage,
        estimated=bool(estimated),
        model=model,
        pricing_version=pricing_version,
        metadata=noted,
        operation_type=operation_type,
        plan_id=admission.plan_id,
        forced=force,
        floor=min_balance,
        key=idempotency_key,
        cap_warning=None if findings is None else findings.warning,
        cap_notices=() if findings is None else findings.notices,
    )
    balance = account.balance
    reply = _new_result(
        transaction_id=row.transaction_id,
        user_id=user_id,
        team_id=team_id,
        amount=admission.money,
        actual=amount,
        allowance_consumed=admission.allowance,
        balance_after=balance,
        available=balance - account.held,
        cap_warning=row.cap_warning,
        cap_notices=row.cap_notices,
    )
    remember(account, acting, "charge", idempotency_key, compared, reply)
    return reply


def _unconditional(book: Book, work: Account, member: Member | None, now: datetime, amount: int) -> Admission:
    """A forced charge asks nobody, but the allowance still pays first."""
    plan = plan_for(book, work, member)
    allowance = min(amount, allowance_left(work, plan, month_of(now)))
    return Admission(allowance, amount - allowance, plan.id if plan else None, None)
