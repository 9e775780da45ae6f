"""Add: credits come in. Debt is repaid first, the rest becomes a grant that expires, or base."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from ducto import arguments
from ducto.errors import ArgumentError, CreditOverflowError, TeamNotFoundError
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.movement import Deltas, add_grant, credit_base, write_row
from ducto.ledger.state import Account, AccountKind, Book
from ducto.models import AddCreditsResult, AddType, Metadata
from ducto.usage import MAX_AMOUNT

__all__ = ["add", "check_incoming", "receive"]


def add(
    book: Book,
    clock_now: datetime,
    kind: AccountKind,
    account_id: str,
    amount: int,
    add_type: AddType,
    metadata: Metadata,
    expires_at: datetime | None,
    *,
    idempotency_key: str | None,
) -> AddCreditsResult:
    arguments.check_amount(amount, minimum=1)
    arguments.check_id(account_id, name=f"{kind}_id")
    arguments.check_key(idempotency_key)
    arguments.check_choice(add_type, arguments.ADD_TYPES, name="type")
    expiry = None if expires_at is None else arguments.check_instant(expires_at, name="expires_at")
    noted = arguments.check_metadata(metadata)

    account = book.user(account_id) if kind == "user" else book.team(account_id)
    if account is None:
        raise TeamNotFoundError(f"There is no team {account_id!r}.")
    now = time_for(account, clock_now)
    compared = (amount,)
    earlier = recall(account, "", "add", idempotency_key, compared)
    if earlier is not None:
        return replayed(cast(AddCreditsResult, earlier))
    if expiry is not None and expiry <= now:  # After the keys: a retry may come when the grant has expired.
        raise ArgumentError(f"expires_at must be in the future, not {expiry.isoformat()}.")
    work = begin(account, now)
    check_incoming(work, amount)
    if add_type == "purchase" and work.lifetime_purchased > MAX_AMOUNT - amount:
        raise CreditOverflowError("The credits purchased would exceed 2^53-1.")

    account = commit(book, work, now)
    deltas = Deltas()
    receive(account, [(expiry, amount)], deltas)
    if add_type == "purchase":
        account.lifetime_purchased += amount
    row = write_row(account, deltas, add_type, now, expires_at=expiry, key=idempotency_key, metadata=noted)
    is_team = kind == "team"
    reply = AddCreditsResult(
        transaction_id=row.transaction_id,
        user_id=None if is_team else account_id,
        team_id=account_id if is_team else None,
        amount=amount,
        new_balance=account.balance,
        lifetime_purchased=account.lifetime_purchased,
    )
    remember(account, "", "add", idempotency_key, compared, reply)
    return reply


def check_incoming(account: Account, amount: int) -> None:
    if account.balance > MAX_AMOUNT - amount:
        raise CreditOverflowError("The balance would exceed 2^53-1 credits.")


def receive(account: Account, parts: list[tuple[datetime | None, int]], deltas: Deltas) -> None:
    """Take in credits by expiry (`None`: they do not expire), repaying debt from them first, in the given order."""
    for expires_at, amount in parts:
        repaid = min(amount, max(0, -account.base))
        rest = amount - repaid
        if expires_at is None or rest == 0:
            credit_base(account, amount, deltas)
        else:
            credit_base(account, repaid, deltas)
            add_grant(account, rest, expires_at, deltas)
