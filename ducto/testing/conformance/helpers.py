"""Small steps that the checks are written in: ids, funds, holds, time, and assertions that explain themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from ducto.models import AddType, Outcome, OveragePolicy, StoredEvent, Transaction
from ducto.stores.base import CreditStore
from ducto.testing.harness import Harness
from ducto.usage import MAX_AMOUNT

__all__ = [
    "MAX_AMOUNT",
    "books",
    "charge",
    "ensure",
    "equal",
    "event_cursor",
    "events_since",
    "expect",
    "fields",
    "fund",
    "hold",
    "in_debt",
    "just_before",
    "key",
    "known",
    "last_row",
    "next_day",
    "next_hour",
    "next_month",
    "now",
    "raises",
    "refused",
    "rows",
    "soon",
    "team_of",
    "user",
]

O = TypeVar("O", bound=Outcome)  # noqa: E741 - the type of an outcome
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

#: How far before a boundary a check stops, so that a slow server does not carry it over by itself.
_MARGIN_SECONDS = 30


def user(label: str = "user") -> str:
    """An id that no other check uses."""
    return f"{label}-{uuid4().hex}"


def key(label: str = "key") -> str:
    return f"{label}-{uuid4().hex}"


def ensure(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def known(value: T | None, what: str) -> T:
    """`value`, which has to be there."""
    if value is None:
        raise AssertionError(f"{what}: expected a value, found None")
    return value


def expect(result: O, what: str) -> O:
    """The call has to succeed."""
    if result.error is not None:
        raise AssertionError(
            f"{what}: expected success, found error {result.error!r} ({result.message}; {result.details!r})"
        )
    return result


def refused(result: O, codes: str | Iterable[str], what: str) -> O:
    """The call has to be refused, with this code or one of these."""
    allowed = {codes} if isinstance(codes, str) else set(codes)
    if result.error not in allowed:
        raise AssertionError(f"{what}: expected error {' or '.join(sorted(allowed))}, found {result!r}")
    return result


def fields(row: object, expected: Mapping[str, object], what: str) -> None:
    """Each named attribute has this value; the message lists all that differ."""
    wrong = {name: (value, getattr(row, name)) for name, value in expected.items() if getattr(row, name) != value}
    if wrong:
        parts = ", ".join(f"{name} expected {want!r} found {found!r}" for name, (want, found) in wrong.items())
        raise AssertionError(f"{what}: {parts}")


async def raises(error: type[E], call: Awaitable[object], what: str) -> E:
    """Awaiting `call` has to raise `error`."""
    try:
        result = await call
    except error as caught:
        return caught
    raise AssertionError(f"{what}: expected {error.__name__} to be raised, found the answer {result!r}")


async def books(store: CreditStore, user_id: str, what: str, *, balance: int, available: int | None = None) -> None:
    """The user's balance and, if given, what of it is available (else all of it has to be)."""
    free = balance if available is None else available
    found = await store.get_balance(user_id)
    equal(found.balance, balance, f"{what}: balance by get_balance")
    account = await store.get_available(user_id)
    fields(account, {"balance": balance, "available": free, "held": balance - free}, f"{what}: get_available")


async def fund(
    store: CreditStore,
    credits: int,
    *,
    user_id: str | None = None,
    type: AddType = "purchase",
    expires_at: datetime | None = None,
) -> str:
    """Give a user (a new one by default) credits; the user's id."""
    target = user() if user_id is None else user_id
    expect(await store.add_credits(target, credits, type, expires_at=expires_at), f"adding {credits} credits")
    return target


async def in_debt(store: CreditStore, credits: int) -> str:
    """A new user whose balance is `-credits`."""
    debtor = user("debtor")
    expect(await store.charge_credits(debtor, credits, force=True), f"charging {credits} by force")
    return debtor


async def hold(
    store: CreditStore,
    user_id: str,
    amount: int,
    *,
    min_balance: int = 0,
    ttl_seconds: int = 600,
    overage: OveragePolicy = "debt",
    model: str | None = None,
    team_id: str | None = None,
) -> str:
    """Reserve, which has to succeed; the reservation's id."""
    result = await store.reserve_credits(
        user_id,
        amount,
        "chat",
        min_balance=min_balance,
        ttl_seconds=ttl_seconds,
        overage=overage,
        model=model,
        team_id=team_id,
    )
    return known(expect(result, f"reserving {amount}").reservation_id, "reservation_id of a reservation")


async def charge(store: CreditStore, user_id: str, amount: int, *, model: str | None = None) -> str:
    """Charge, which has to succeed; the transaction's id."""
    result = await store.charge_credits(user_id, amount, model=model)
    return known(expect(result, f"charging {amount}").transaction_id, "transaction_id of a charge")


async def team_of(store: CreditStore, *members: str, credits: int = 0, spend_cap: int | None = None) -> str:
    """A new team with these members; its id."""
    made = expect(await store.create_team("Team", credits), f"creating a team with {credits} credits")
    team_id = known(made.team_id, "team_id of a new team")
    for member in members:
        expect(await store.add_team_member(team_id, member, spend_cap=spend_cap), f"adding {member}")
    return team_id


async def rows(store: CreditStore, user_id: str | None = None, *, team_id: str | None = None) -> list[Transaction]:
    """All ledger rows, newest first."""
    found: list[Transaction] = []
    cursor: str | None = None
    while True:
        page = await store.list_transactions(user_id, team_id=team_id, cursor=cursor, limit=50)
        found.extend(page.transactions)
        cursor = page.next_cursor
        if cursor is None:
            return found


async def last_row(store: CreditStore, user_id: str) -> Transaction:
    found = await rows(store, user_id)
    ensure(bool(found), f"expected a ledger row for {user_id}, found none")
    return found[0]


async def event_cursor(store: CreditStore) -> str | None:
    """The end of the event list as it is now."""
    cursor: str | None = None
    while True:
        page = await store.list_events(cursor)
        if not page.events or page.next_cursor is None:
            return cursor
        cursor = page.next_cursor


async def events_since(store: CreditStore, cursor: str | None, user_id: str) -> list[StoredEvent]:
    """What was recorded about the user after `cursor`, oldest first."""
    found: list[StoredEvent] = []
    while True:
        page = await store.list_events(cursor)
        found.extend(event for event in page.events if event.user_id == user_id)
        if not page.events or page.next_cursor is None:
            return found
        cursor = page.next_cursor


async def now(harness: Harness) -> datetime:
    """The store's time, told by the expiry of a reservation of nothing, which then ends by itself."""
    watcher = user("clock")
    result = expect(
        await harness.store.reserve_credits(watcher, 0, "clock", ttl_seconds=1, grace_seconds=0),
        "reserving 0",
    )
    return known(result.expires_at, "expires_at of a reservation") - timedelta(seconds=1)


async def soon(harness: Harness, seconds: float) -> datetime:
    """A moment `seconds` from the store's time."""
    return await now(harness) + timedelta(seconds=seconds)


def next_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def next_day(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_month(moment: datetime) -> datetime:
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


async def just_before(harness: Harness, boundary: Any) -> datetime:
    """Go to half a minute before the next boundary; `boundary` is `next_hour`, `next_day` or `next_month`.

    Returns the boundary. Advancing by a minute from here crosses it.
    """
    moment = await now(harness)
    end: datetime = boundary(moment)
    if (end - moment).total_seconds() <= _MARGIN_SECONDS:
        end = boundary(end)
    await harness.advance((end - moment).total_seconds() - _MARGIN_SECONDS)
    return end
