"""Reading reservations: one, and pages of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.ledger import ids
from ducto.ledger.due import begin, time_for
from ducto.ledger.grants import grant_parts
from ducto.ledger.holds import locate, owned_hold
from ducto.ledger.state import Account, AccountKind, Book, Hold
from ducto.models import Reservation, ReservationPage, ReservationState

__all__ = ["described", "get_reservation", "list_reservations"]

#: Where a reservation stands in the listing: kind and id of its account, and its number there.
_Place = tuple[AccountKind, str, int]


def get_reservation(book: Book, clock_now: datetime, user_id: str, reservation_id: str) -> Reservation:
    arguments.check_id(user_id)
    account = locate(book, user_id, reservation_id)
    work = begin(account, time_for(account, clock_now))
    return described(work, owned_hold(work, user_id, reservation_id))


def list_reservations(
    book: Book,
    clock_now: datetime,
    user_id: str | None,
    *,
    states: Sequence[ReservationState],
    cursor: str | None,
    limit: int,
) -> ReservationPage:
    """By account, the oldest of an account first. The cursor is the id of the last reservation seen."""
    arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
    arguments.check_optional_id(user_id, name="user_id")
    wanted_states = arguments.check_states(states)
    after = None if cursor is None else _place(cursor)
    found: list[Reservation] = []
    for kind, account_id in sorted(book.accounts):
        # Accounts before that of the cursor have been listed.
        if after is not None and (kind, account_id) < after[:2]:
            continue
        account = book.accounts[kind, account_id]
        for number, hold in _numbered(account, time_for(account, clock_now)):
            if hold.state not in wanted_states or user_id not in (None, hold.user_id):
                continue
            if after is not None and (kind, account_id, number) <= after:
                continue
            if len(found) == limit:
                return ReservationPage(reservations=tuple(found), next_cursor=found[-1].reservation_id)
            found.append(described(account, hold))
    return ReservationPage(reservations=tuple(found))


def _numbered(account: Account, now: datetime) -> Iterator[tuple[int, Hold]]:
    """The holds of an account in the order in which they were made; one that has ended by itself shows so."""
    numbered = sorted(
        (int(hold.id.rpartition(".")[2]), hold) for holds in (account.ended, account.open) for hold in holds.values()
    )
    for number, hold in numbered:
        over = hold.state == "active" and hold.due_at <= now
        yield number, replace(hold, state="expired", ended_at=hold.due_at) if over else hold


def _place(cursor: object) -> _Place:
    place = ids.account_of(cursor) if isinstance(cursor, str) and cursor.isascii() else None
    if place is None or not place[1] or ids.reservation_id(ids.account_tag(*place[:2]), place[2]) != cursor:
        raise ArgumentError("A cursor is what the page before gave as next_cursor.")
    return place


def described(account: Account, hold: Hold) -> Reservation:
    return Reservation(
        reservation_id=hold.id,
        user_id=hold.user_id,
        team_id=hold.team_id,
        amount=hold.amount,
        held=hold.money_held,
        allowance_held=hold.allowance_held,
        state=hold.state,
        operation_type=hold.operation_type,
        model=hold.model,
        plan_id=hold.plan_id,
        pricing_version=hold.pricing_version,
        overage=hold.overage,
        min_balance=hold.min_balance,
        max_settle=hold.max_settle,
        grace_seconds=int(hold.grace.total_seconds()),
        transaction_id=hold.transaction_id,
        idempotency_key=hold.key,
        metadata=deepcopy(hold.metadata),
        grant_holds=grant_parts(account, hold.grant_holds),
        cap_warning=hold.cap_warning,
        cap_notices=hold.cap_notices,
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        ended_at=hold.ended_at,
    )
