"""Reading the ledger: single transactions, pages of them, and the events of the whole book."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from itertools import islice

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.ledger.grants import grant_parts
from ducto.ledger.refund import find_row
from ducto.ledger.state import Account, Book, Entry, Row
from ducto.ledger.teams import find_team
from ducto.models import EventPage, StoredEvent, Transaction, TransactionPage

__all__ = ["get_transaction", "list_events", "list_ledger", "list_transactions"]


def get_transaction(book: Book, transaction_id: str) -> Transaction:
    account, row = find_row(book, transaction_id)
    return _described(account, row)


def list_transactions(
    book: Book, user_id: str | None, *, team_id: str | None, cursor: str | None, limit: int
) -> TransactionPage:
    """Newest first. The cursor is the number of the last row seen, so that new rows never shift a page."""
    arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
    if user_id is not None:
        arguments.check_id(user_id)
    if team_id is not None:
        account = find_team(book, team_id)
    elif user_id is not None:
        account = book.user(user_id)
    else:
        raise ArgumentError("Give user_id, team_id, or both for a member's rows in the team.")
    before = len(account.rows) + 1 if cursor is None else _number(cursor)
    wanted: list[Row] = []
    for row in reversed(account.rows[: max(before - 1, 0)]):
        if team_id is not None and user_id is not None and row.user_id != user_id:
            continue
        if len(wanted) == limit:
            return TransactionPage(
                transactions=tuple(_described(account, each) for each in wanted),
                next_cursor=str(wanted[-1].sequence),
            )
        wanted.append(row)
    return TransactionPage(transactions=tuple(_described(account, each) for each in wanted))


def list_events(book: Book, after: str | None, *, limit: int) -> EventPage:
    arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
    first = 0 if after is None else _number(after)
    events = tuple(
        StoredEvent(
            id=str(number),
            name=entry.event,
            user_id=entry.user_id or None,
            team_id=entry.team_id,
            amount=entry.amount,
            transaction_id=entry.transaction_id,
            reservation_id=entry.reservation_id,
            occurred_at=entry.created_at,
        )
        for number, entry in enumerate(book.entries[first : first + limit], start=first + 1)
    )
    return EventPage(events=events, next_cursor=events[-1].id if events else None)


def list_ledger(
    book: Book, after: str | None, *, start: datetime | None, end: datetime | None, limit: int
) -> TransactionPage:
    """Rows of all accounts in the order of events. The cursor is the number of the last row's event."""
    arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
    first, last = arguments.check_open_window(start, end)
    wanted: list[Transaction] = []
    place = 0 if after is None else _number(after)
    cursor: str | None = None
    for number, entry in enumerate(islice(book.entries, place, None), start=place + 1):
        if isinstance(entry, Entry) or (first and entry.created_at < first) or (last and entry.created_at >= last):
            continue
        account = book.accounts[("user", entry.user_id) if entry.team_id is None else ("team", entry.team_id)]
        wanted.append(_described(account, entry))
        cursor = str(number)
        if len(wanted) == limit:
            break
    return TransactionPage(transactions=tuple(wanted), next_cursor=cursor)


def _number(cursor: object) -> int:
    if isinstance(cursor, str) and cursor.isascii() and cursor.isdecimal() and len(cursor) <= 16:
        return int(cursor)
    raise ArgumentError("A cursor is what the page before gave as next_cursor.")


def _described(account: Account, row: Row) -> Transaction:
    return Transaction(
        transaction_id=row.transaction_id,
        sequence=row.sequence,
        type=row.type,
        user_id=row.user_id or None,
        team_id=row.team_id,
        amount=row.amount,
        balance_after=row.balance_after,
        actual=row.actual,
        charged=row.charged,
        unbilled=row.unbilled,
        allowance_consumed=row.allowance,
        refunded=row.refunded,
        reservation_id=row.reservation_id,
        reserved=row.reserved,
        refunded_transaction_id=None if row.refunds is None else account.rows[row.refunds - 1].transaction_id,
        counterparty=row.counterparty,
        operation_type=row.operation_type,
        model=row.model,
        pricing_version=row.pricing_version,
        plan_id=row.plan_id,
        usage=row.usage,
        estimated=row.estimated,
        late=row.late,
        forced=row.forced,
        suspect=row.suspect,
        expires_at=row.expires_at,
        idempotency_key=row.key,
        metadata=deepcopy(row.metadata),
        grant_deltas=grant_parts(account, row.grant_deltas),
        cap_warning=row.cap_warning,
        cap_notices=row.cap_notices,
        booked_at=row.booked_at,
        created_at=row.created_at,
    )
