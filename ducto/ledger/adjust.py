"""Adjust: an operator corrects a balance by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, cast

from ducto import arguments
from ducto.ledger.add import check_incoming, receive
from ducto.ledger.admission import check_debt, check_funds
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, spend_free, write_row
from ducto.ledger.state import Book
from ducto.models import AdjustCreditsResult, Metadata
from ducto.usage import MAX_AMOUNT

__all__ = ["adjust"]


def adjust(
    book: Book,
    clock_now: datetime,
    user_id: str,
    amount: int,
    *,
    direction: Literal["credit", "debit"],
    metadata: Metadata,
    min_balance: int,
    force: bool,
    idempotency_key: str | None,
) -> AdjustCreditsResult:
    arguments.check_amount(amount, minimum=1)
    arguments.check_id(user_id)
    arguments.check_key(idempotency_key)
    arguments.check_choice(direction, ("credit", "debit"), name="direction")
    arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
    noted = arguments.check_metadata(metadata)

    account = book.user(user_id)
    now = time_for(account, clock_now)
    signed = amount if direction == "credit" else -amount
    compared = (signed,)
    earlier = recall(account, "", "adjust", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(AdjustCreditsResult, earlier))
    work = begin(account, now)
    if direction == "credit":
        check_incoming(work, amount)
    else:
        if not force:
            check_funds(work, amount, min_balance)
        check_debt(work, amount)

    account = commit(book, work, now)
    deltas = Deltas()
    if direction == "credit":
        receive(account, [(None, amount)], deltas)
    else:
        spend_free(account, amount, deltas)
    row = write_row(
        account,
        deltas,
        "adjustment",
        now,
        event="credits.adjusted",
        forced=force,
        floor=min_balance,
        key=idempotency_key,
        metadata=noted,
    )
    reply = AdjustCreditsResult(
        transaction_id=row.transaction_id, user_id=user_id, amount=signed, new_balance=account.balance
    )
    remember(account, "", "adjust", idempotency_key, compared, reply)
    return reply
