"""Refund: a spend, or part of it, goes back to the account that paid."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from ducto import arguments
from ducto.errors import (
    AlreadyRefundedError,
    NotRefundableError,
    OverRefundError,
    TransactionNotFoundError,
)
from ducto.ledger.add import check_incoming
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.ids import account_of
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, credit_base, make_live, repay_debt, write_row
from ducto.ledger.state import Account, Book, RefundTally, Row
from ducto.ledger.windows import month_of
from ducto.models import Metadata, RefundResult

__all__ = ["find_row", "refund"]

#: Adjustments and transfers are undone by another adjustment or transfer, with a floor to respect.
REFUNDABLE = ("deduction", "charge", "allowance")


def refund(
    book: Book,
    clock_now: datetime,
    transaction_id: str,
    amount: int | None,
    reason: str | None,
    metadata: Metadata,
    *,
    idempotency_key: str | None,
) -> RefundResult:
    if amount is not None:
        arguments.check_amount(amount, minimum=1)
    arguments.check_key(idempotency_key)
    arguments.check_optional_id(reason, name="reason")
    noted = arguments.check_metadata(metadata)
    if reason is not None:
        noted = {**(noted or {}), "reason": reason}

    account, spend = find_row(book, transaction_id)
    acting = "" if spend.team_id is None else spend.user_id
    now = time_for(account, clock_now)
    compared = (amount, transaction_id)
    earlier = recall(account, acting, "refund", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(RefundResult, earlier))
    if spend.type not in REFUNDABLE or spend.charged == 0:
        raise NotRefundableError(f"The transaction {transaction_id} charged nothing that could be refunded.")
    tally = account.refunds.get(spend.sequence, RefundTally())
    left = spend.charged - tally.money - tally.allowance
    if left == 0:
        raise AlreadyRefundedError(f"The transaction {transaction_id} has been refunded in full.")
    wanted = left if amount is None else amount
    if wanted > left:
        raise OverRefundError(f"{wanted} credits are more than the {left} left to refund.", limit=left)
    money = min(wanted, -spend.amount - tally.money)
    allowance = wanted - money
    work = begin(account, now)
    check_incoming(work, money)

    account = commit(book, work, now)
    deltas = Deltas()
    _return_money(account, spend, tally.money, money, now, deltas)
    repay_debt(account, now, deltas=deltas)
    restored = 0
    if allowance and month_of(spend.booked_at) == month_of(now):
        restored = allowance
        account.allowances[month_of(now)].used -= allowance
    account.refunds[spend.sequence] = RefundTally(tally.money + money, tally.allowance + allowance)
    row = write_row(
        account,
        deltas,
        "refund",
        now,
        user_id=spend.user_id,
        refunded=money + restored,
        allowance=-restored,
        refunds=spend.sequence,
        operation_type=spend.operation_type,
        key=idempotency_key,
        model=spend.model,
        metadata=noted,
    )
    reply = RefundResult(
        transaction_id=row.transaction_id,
        refunded_transaction_id=transaction_id,
        user_id=spend.user_id,
        team_id=spend.team_id,
        amount=money,
        allowance_restored=restored,
        balance_after=account.balance,
    )
    remember(account, acting, "refund", idempotency_key, compared, reply)
    return reply


def find_row(book: Book, transaction_id: object) -> tuple[Account, Row]:
    """The account and the row of a transaction; for a transfer the row of the one who sent."""
    if not isinstance(transaction_id, str):
        arguments.check_id(transaction_id, name="transaction_id")
    minted = account_of(str(transaction_id))
    account = None if minted is None else book.accounts.get(minted[:2])
    if minted is not None and account is not None and 0 < minted[2] <= len(account.rows):
        row = account.rows[minted[2] - 1]
        if row.transaction_id == transaction_id:
            return account, row
    raise TransactionNotFoundError(f"There is no transaction {str(transaction_id)[:80]!r}.")


def _return_money(account: Account, spend: Row, before: int, money: int, now: datetime, deltas: Deltas) -> None:
    """Put `money` back where it came from, latest consumed first, after the `before` that went back earlier."""
    sources: list[tuple[int | None, int]] = [(None, -spend.base_delta)] if spend.base_delta < 0 else []
    sources += [(grant_id, -delta) for grant_id, delta in reversed(spend.grant_deltas) if delta < 0]
    for grant_id, taken in sources:
        skipped = min(taken, before)
        before -= skipped
        back = min(taken - skipped, money)
        if back <= 0:
            continue
        money -= back
        grant = None if grant_id is None else account.grants[grant_id]
        if grant is None or grant.expires_at <= now:
            credit_base(account, back, deltas)
        else:
            grant.remaining += back
            make_live(account, grant)
            account.next_due_at = min(account.next_due_at, grant.expires_at)
            deltas.grant(grant.id, back)
