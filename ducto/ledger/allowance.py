"""The monthly allowance: asking for it, and booking use of it without a price in credits."""

from __future__ import annotations

from datetime import datetime

from ducto import arguments
from ducto.errors import PlanNotFoundError
from ducto.ledger.admission import allowance_left, plan_of
from ducto.ledger.cap_counters import check_room
from ducto.ledger.due import begin, commit, stable_until, time_for
from ducto.ledger.keys import recall, remember
from ducto.ledger.movement import Deltas, write_row
from ducto.ledger.spending import count_spend
from ducto.ledger.state import AllowanceUse, Book
from ducto.ledger.windows import month_of, month_window
from ducto.models import AllowanceResult, Outcome

__all__ = ["allowance", "check_allowance"]


def check_allowance(book: Book, clock_now: datetime, user_id: str) -> AllowanceResult:
    arguments.check_id(user_id)
    account = book.user(user_id)
    now = time_for(account, clock_now)
    work = begin(account, now)
    plan = plan_of(book, work)
    use = work.allowances.get(month_of(now), AllowanceUse())
    start, end = month_window(now)
    return AllowanceResult(
        user_id=user_id,
        plan_id=plan.id if plan else None,
        allowance=plan.free_allowance if plan else 0,
        used=use.used,
        held=use.held,
        remaining=allowance_left(work, plan, month_of(now)),
        period_start=start,
        period_end=end,
        stable_until=min(stable_until(work), end),
    )


def allowance(
    book: Book, clock_now: datetime, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None
) -> None:
    """Book `amount` as used, up to what is left of the month. Allowance is per account: `plan_id` must only exist."""
    arguments.check_amount(amount)
    arguments.check_id(user_id)
    arguments.check_id(plan_id, name="plan_id")
    arguments.check_key(idempotency_key)
    account = book.user(user_id)
    now = time_for(account, clock_now)
    compared = (amount,)
    if recall(account, "", "allowance", idempotency_key, compared) is not None:
        return
    if plan_id not in book.plans:
        raise PlanNotFoundError(f"There is no plan {plan_id!r}.")
    work = begin(account, now)
    used = min(amount, allowance_left(work, plan_of(book, work), month_of(now)))
    check_room(work, now, None, used)

    account = commit(book, work, now)
    deltas = Deltas()
    count_spend(account, None, deltas, now, admitted_at=now, model=None, charged=used, allowance=used)
    write_row(
        account,
        deltas,
        "allowance",
        now,
        actual=used,
        charged=used,
        allowance=used,
        operation_type="allowance",
        plan_id=plan_id,
        key=idempotency_key,
    )
    remember(account, "", "allowance", idempotency_key, compared, Outcome())
