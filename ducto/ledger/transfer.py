"""Transfer: credits move between two users, as two rows of sum 0 under one transaction id."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.ledger.add import check_incoming, receive
from ducto.ledger.admission import check_funds
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, spend_free, write_row
from ducto.ledger.state import Account, Book
from ducto.models import Metadata, TransferResult
from ducto.usage import MAX_AMOUNT

__all__ = ["transfer"]


def transfer(
    book: Book,
    clock_now: datetime,
    from_user_id: str,
    to_user_id: str,
    amount: int,
    *,
    metadata: Metadata,
    min_balance: int,
    idempotency_key: str | None,
) -> TransferResult:
    arguments.check_amount(amount, minimum=1)
    arguments.check_id(from_user_id, name="from_user_id")
    arguments.check_id(to_user_id, name="to_user_id")
    arguments.check_key(idempotency_key)
    arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
    noted = arguments.check_metadata(metadata)
    if from_user_id == to_user_id:
        raise ArgumentError("to_user_id must be another user than from_user_id.")

    source, target = book.user(from_user_id), book.user(to_user_id)
    now = max(time_for(source, clock_now), time_for(target, clock_now))
    compared = (amount, to_user_id)
    earlier = recall(source, "", "transfer", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(TransferResult, earlier))
    source_work, target_work = begin(source, now), begin(target, now)
    check_funds(source_work, amount, min_balance)
    check_incoming(target_work, amount)

    source, target = commit(book, source_work, now), commit(book, target_work, now)
    out = Deltas()
    spend_free(source, amount, out)
    left = write_row(
        source,
        out,
        "transfer_out",
        now,
        counterparty=to_user_id,
        floor=min_balance,
        key=idempotency_key,
        metadata=noted,
    )
    into = Deltas()
    receive(target, _parts(source, out), into)
    write_row(
        target,
        into,
        "transfer_in",
        now,
        transaction_id=left.transaction_id,
        counterparty=from_user_id,
        metadata=noted,
    )
    reply = TransferResult(
        transaction_id=left.transaction_id,
        from_user_id=from_user_id,
        to_user_id=to_user_id,
        amount=amount,
        from_balance=source.balance,
        to_balance=target.balance,
    )
    remember(source, "", "transfer", idempotency_key, compared, reply)
    return reply


def _parts(source: Account, out: Deltas) -> list[tuple[datetime | None, int]]:
    """What left, by expiry: credits that expire go on expiring, else a transfer would make them last for ever."""
    by_expiry: dict[datetime | None, int] = {}
    for grant_id, delta in out.grants.items():
        expires_at = source.grants[grant_id].expires_at
        by_expiry[expires_at] = by_expiry.get(expires_at, 0) - delta
    if out.base:
        by_expiry[None] = -out.base
    return list(by_expiry.items())
