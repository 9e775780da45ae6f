"""Checks of what is listed across accounts: the whole ledger, reservations, and the sums that reports are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from ducto.errors import ArgumentError
from ducto.models import Reservation, ReservationState, Transaction
from ducto.stores.base import CreditStore
from ducto.testing.conformance.helpers import (
    charge,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    key,
    now,
    raises,
    rows,
    team_of,
    user,
)
from ducto.testing.harness import Harness

_TICK = timedelta(microseconds=1)
_BAD_LIMITS = (0, -1, 1001, True, 1.5)


async def _ledger(
    store: CreditStore,
    users: Collection[str],
    *,
    start: datetime,
    end: datetime | None = None,
    after: str | None = None,
    limit: int = 100,
) -> tuple[list[Transaction], str | None]:
    """The rows of `users` on all pages, and the last cursor."""
    found: list[Transaction] = []
    while True:
        page = await store.list_ledger(after, start=start, end=end, limit=limit)
        ensure(len(page.transactions) <= limit, f"expected at most {limit} rows, found {len(page.transactions)}")
        if not page.transactions:
            return found, after
        ensure(page.next_cursor is not None, "expected a next_cursor on a page that has rows, found None")
        found += [row for row in page.transactions if row.user_id in users]
        after = page.next_cursor


async def _some_rows(harness: Harness) -> tuple[datetime, list[str]]:
    """A moment, and the users that have six rows since then, two of them in a team."""
    store = harness.store
    await harness.advance(5)
    start = await now(harness)
    payer, friend = await fund(store, 100), user()
    await charge(store, payer, 10)
    expect(await store.transfer_credits(payer, friend, 20), "transfer: a row of each")
    team_id = await team_of(store, payer, credits=50)
    expect(await store.deduct_team(team_id, payer, 5), "deduct_team")
    await harness.advance(10)
    await charge(store, friend, 3)
    return start, [payer, friend]


async def check_ledger_lists_every_row_once_page_by_page(harness: Harness) -> None:
    """Rows of users and teams, each as its account lists it, whatever the size of the pages."""
    store = harness.store
    start, users = await _some_rows(harness)
    whole, _ = await _ledger(store, users, start=start)
    equal(
        sorted(row.type for row in whole),
        ["charge", "charge", "charge", "purchase", "transfer_in", "transfer_out"],
        "types of the rows of the whole book",
    )
    for payer in users:
        own = [row for row in whole if row.user_id == payer and row.team_id is None]
        equal(own, (await rows(store, payer))[::-1], "rows of an account in the book, against its own list")
    for limit in (1, 2):
        equal((await _ledger(store, users, start=start, limit=limit))[0], whole, f"rows on pages of {limit}")


async def check_ledger_goes_on_after_its_cursor(harness: Harness) -> None:
    """Who has come to the end goes on from there later, and sees what is new, once."""
    store = harness.store
    start, users = await _some_rows(harness)
    _, cursor = await _ledger(store, users, start=start)
    equal((await _ledger(store, users, start=start, after=cursor))[0], [], "rows after the last cursor")
    added = [await charge(store, users[0], 1), await charge(store, users[1], 2)]
    found, _ = await _ledger(store, users, start=start, after=cursor, limit=1)
    equal([row.transaction_id for row in found], added, "rows after the cursor, in the order of two charges")


async def check_ledger_windows_are_half_open(harness: Harness) -> None:
    store = harness.store
    start, users = await _some_rows(harness)
    whole, _ = await _ledger(store, users, start=start)
    last = whole[-1].created_at
    before, _ = await _ledger(store, users, start=start, end=last)
    equal(before, [row for row in whole if row.created_at < last], "rows up to the instant of the last one")
    for first, end, expected in ((last, last + _TICK, whole[-1:]), (last + _TICK, None, []), (last, last, [])):
        equal((await _ledger(store, users, start=first, end=end))[0], expected, f"rows from {first} to {end}")


async def check_bad_ledger_pages_are_refused(harness: Harness) -> None:
    store = harness.store
    moment = await now(harness)
    for limit in _BAD_LIMITS:
        await raises(ArgumentError, store.list_ledger(limit=limit), f"list_ledger(limit={limit!r})")  # type: ignore[arg-type]
    for cursor in ("no cursor of ours", ""):
        await raises(ArgumentError, store.list_ledger(cursor), f"list_ledger({cursor!r})")
    await raises(ArgumentError, store.list_ledger(start=moment.replace(tzinfo=None)), "a start without a time zone")
    await raises(ArgumentError, store.list_ledger(start=moment, end=moment - _TICK), "an end before the start")


async def check_roll_up_changes_no_report(harness: Harness) -> None:
    """Reports are exact before, between and after, in portions of any size; rows are never counted twice."""
    store = harness.store
    start, (payer, friend) = await _some_rows(harness)
    for step in range(4):
        await charge(store, payer, 7, model="m")
        await harness.advance(1)
        if step:
            portion = await store.roll_up_spend(limit=2 if step < 3 else 10_000)
            ensure(type(portion) is int and portion >= 0, f"roll_up_spend: expected a count, found {portion!r}")
        found = {row.user_id: row.total_spend for row in await store.spend_by_user(start, await now(harness))}
        equal(
            (found.get(payer), found.get(friend)),
            (10 + 5 + 7 * (step + 1), 3),
            f"spend of two users after {step} portions were rolled up",
        )
    while await store.roll_up_spend():
        pass
    end = await now(harness)
    fields(
        await store.aggregate_stats(start, end),
        {"total_spend": 46, "transaction_count": 7},
        "the window in one row once all is rolled up",
    )
    equal((await store.top_users(1, start, end))[0].user_id, payer, "the top user once all is rolled up")


async def check_bad_roll_ups_are_refused(harness: Harness) -> None:
    for limit in (0, -1, 1_000_001, True, 1.5):
        await raises(ArgumentError, harness.store.roll_up_spend(limit=limit), f"roll_up_spend(limit={limit!r})")  # type: ignore[arg-type]


async def _reservations(
    store: CreditStore,
    user_id: str | None,
    *,
    states: Sequence[ReservationState] = ("active",),
    limit: int = 50,
) -> list[Reservation]:
    """Those of all pages."""
    found: list[Reservation] = []
    cursor: str | None = None
    while True:
        page = await store.list_reservations(user_id, states=states, cursor=cursor, limit=limit)
        ensure(len(page.reservations) <= limit, f"expected at most {limit}, found {len(page.reservations)}")
        found += page.reservations
        cursor = page.next_cursor
        if cursor is None:
            return found


async def check_open_reservations_are_listed(harness: Harness) -> None:
    """Those of a user on its own account and in teams, each as `get_reservation` tells it, and nobody else's."""
    store = harness.store
    payer, other = await fund(store, 100), await fund(store, 100)
    team_id = await team_of(store, payer, other, credits=100)
    settled, released = await hold(store, payer, 5), await hold(store, payer, 6)
    own = [await hold(store, payer, amount) for amount in (10, 11, 12)]
    theirs = [await hold(store, payer, 13, team_id=team_id)]
    foreign = [await hold(store, other, 14), await hold(store, other, 15, team_id=team_id)]
    expect(await store.deduct_credits(payer, settled, 5), "deduct")
    expect(await store.release_reservation(payer, released), "release")
    found = await _reservations(store, payer)
    equal(sorted(each.reservation_id for each in found), sorted(own + theirs), "open reservations of a user")
    equal([each.reservation_id for each in found if each.team_id is None], own, "those of one account, oldest first")
    equal([await store.get_reservation(payer, each.reservation_id) for each in found], found, "each by get_reservation")
    everyone = [each.reservation_id for each in await _reservations(store, None, limit=1000)]
    equal(len(everyone), len(set(everyone)), "open reservations of everybody, counted once each")
    listed = set(everyone)
    ensure(
        listed.issuperset({*own, *theirs, *foreign}) and listed.isdisjoint({settled, released}),
        f"expected the 6 open reservations of everybody and none that ended, found {len(listed)} others",
    )


async def check_reservations_are_listed_page_by_page(harness: Harness) -> None:
    """Each once, also when one that was listed ends and another begins between two pages."""
    store = harness.store
    payer = await fund(store, 100)
    made = [await hold(store, payer, 1) for _ in range(5)]
    for limit in (1, 2, 5):
        found = await _reservations(store, payer, limit=limit)
        equal([each.reservation_id for each in found], made, f"open reservations on pages of {limit}")
    page = await store.list_reservations(payer, limit=2)
    equal([each.reservation_id for each in page.reservations], made[:2], "the first page")
    expect(await store.release_reservation(payer, made[1]), "release of the last one listed")
    late = await hold(store, payer, 1)
    rest = await store.list_reservations(payer, cursor=page.next_cursor)
    equal([each.reservation_id for each in rest.reservations], [*made[2:], late], "the pages after it")
    equal(rest.next_cursor, None, "next_cursor of the last page")


async def check_reservations_are_listed_by_state(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    ended: dict[ReservationState, str] = {
        "settled": await hold(store, payer, 1),
        "released": await hold(store, payer, 2),
        "expired": await hold(store, payer, 3, ttl_seconds=10),
        "active": await hold(store, payer, 4, ttl_seconds=3600),
    }
    expect(await store.deduct_credits(payer, ended["settled"], 1), "deduct")
    expect(await store.release_reservation(payer, ended["released"]), "release")
    await harness.advance(300)
    for booked in (False, True):
        for state, reservation_id in ended.items():
            found = await _reservations(store, payer, states=[state])
            equal(
                [(each.reservation_id, each.state) for each in found],
                [(reservation_id, state)],
                f"reservations in the state {state}, {'after' if booked else 'before'} the reaper",
            )
            equal(found, [await store.get_reservation(payer, reservation_id)], "as get_reservation tells it")
        every = await _reservations(store, payer, states=tuple(ended), limit=3)
        equal([each.reservation_id for each in every], list(ended.values()), "reservations in any state")
        await store.reap_expired_reservations()


async def check_bad_reservation_pages_are_refused(harness: Harness) -> None:
    store = harness.store
    for limit in _BAD_LIMITS:
        await raises(ArgumentError, store.list_reservations(limit=limit), f"list_reservations(limit={limit!r})")  # type: ignore[arg-type]
    for states in ((), "active", ("active", "gone"), (1,), None, 7):
        bad = store.list_reservations(states=states)  # type: ignore[arg-type]
        await raises(ArgumentError, bad, f"list_reservations(states={states!r})")
    for cursor in ("no cursor of ours", "", "rsv_u.1", "rsv_x.1", key("txn")):
        await raises(ArgumentError, store.list_reservations(cursor=cursor), f"list_reservations(cursor={cursor!r})")
    for user_id in ("", " padded", 7):
        await raises(ArgumentError, store.list_reservations(user_id), f"list_reservations({user_id!r})")  # type: ignore[arg-type]
    equal((await store.list_reservations(user())).reservations, (), "open reservations of an unknown user")
