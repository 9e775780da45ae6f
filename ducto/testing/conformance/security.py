"""Checks of what one caller must not be able to do to another."""

from __future__ import annotations

from typing import Any

from ducto.errors import ReservationNotFoundError
from ducto.models import SpendCap
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fund,
    hold,
    key,
    raises,
    refused,
    rows,
    team_of,
    user,
)
from ducto.testing.harness import Harness


async def check_foreign_reservations_look_unknown(harness: Harness) -> None:
    """An id grants no right, and the answer does not tell whether it exists."""
    store = harness.store
    owner, thief = await fund(store, 100), await fund(store, 100)
    reservation_id = await hold(store, owner, 40)
    foreign = refused(
        await store.deduct_credits(thief, reservation_id, 40),
        "reservation_not_found",
        "deduct of a foreign hold",
    )
    unknown = refused(
        await store.deduct_credits(thief, key("res"), 40),
        "reservation_not_found",
        "deduct of an unknown hold",
    )
    shape = (foreign.details is None, foreign.user_id, foreign.balance_after)
    equal(shape, (unknown.details is None, unknown.user_id, unknown.balance_after), "both answers are alike")
    refused(await store.release_reservation(thief, reservation_id), "reservation_not_found", "foreign release")
    refused(await store.renew_reservation(thief, reservation_id), "reservation_not_found", "foreign renewal")
    await raises(ReservationNotFoundError, store.get_reservation(thief, reservation_id), "reading a foreign hold")
    await books(store, owner, "the owner", balance=100, available=60)
    await books(store, thief, "the thief", balance=100)
    expect(await store.deduct_credits(owner, reservation_id, 40), "the owner's own deduct")
    refused(await store.deduct_credits(thief, reservation_id, 40), "reservation_not_found", "foreign replay")
    refused(
        await store.deduct_credits(user("nobody"), reservation_id, 40),
        "reservation_not_found",
        "a stranger's deduct",
    )


async def check_colleagues_reservations_look_unknown(harness: Harness) -> None:
    """Within a team too, a reservation belongs to the member who made it."""
    store, member, colleague = harness.store, user(), user()
    team_id = await team_of(store, member, colleague, credits=100)
    reservation_id = await hold(store, member, 40, team_id=team_id)
    refused(
        await store.deduct_credits(colleague, reservation_id, 5),
        "reservation_not_found",
        "colleague's deduct",
    )
    refused(
        await store.release_reservation(colleague, reservation_id),
        "reservation_not_found",
        "colleague's release",
    )
    equal((await store.get_team_balance(team_id)).held, 40, "held after the colleague's attempts")


async def check_guessed_keys_show_nothing(harness: Harness) -> None:
    store, guessed = harness.store, key()
    owner, thief = await fund(store, 100), await fund(store, 100)
    mine = expect(await store.reserve_credits(owner, 40, "chat", idempotency_key=guessed), "reserve")
    theirs = expect(await store.reserve_credits(thief, 40, "chat", idempotency_key=guessed), "the same by another")
    ensure(theirs.reservation_id != mine.reservation_id, "another user's reply must not be given away")
    equal((theirs.user_id, theirs.replayed), (thief, False), "user and replayed of the second answer")


async def check_metadata_is_plain_data(harness: Harness) -> None:
    """A key, a team or a model in metadata is never read by the ledger."""
    store, smuggled = harness.store, key()
    payer = await fund(store, 100)
    team_id = await team_of(store, payer, credits=100)
    await store.set_spend_cap(SpendCap(user_id=payer, cap_type="daily", limit=0, model="m-1"))
    metadata: dict[str, Any] = {
        "idempotency_key": smuggled,
        "team_id": team_id,
        "model": "m-1",
        "user_id": user("victim"),
        "amount": 0,
        "min_balance": -1000,
        "force": True,
        "expires_at": "2000-01-01T00:00:00Z",
    }
    for _ in range(2):
        result = expect(await store.charge_credits(payer, 10, "charge", metadata), "charge")
        equal(result.replayed, False, "a key in metadata is no key")
    reserved = expect(await store.reserve_credits(payer, 10, "chat", metadata, 0), "reserve")
    equal(reserved.team_id, None, "a team in metadata is no team")
    expect(await store.add_credits(payer, 5, "purchase", metadata), "add")
    refused(await store.charge_credits(payer, 1000, "charge", metadata), "insufficient_credits", "no force either")
    await books(store, payer, "the payer", balance=85, available=75)
    equal((await store.get_team_balance(team_id)).balance, 100, "the team's pool")
    row = (await rows(store, payer))[1]
    equal(
        (row.model, row.team_id, row.idempotency_key, row.metadata),
        (None, None, None, metadata),
        "the row's columns",
    )


async def check_users_and_teams_are_two_name_spaces(harness: Harness) -> None:
    """A user who calls itself like a team is not the team."""
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100)
    for disguise in (team_id, f"team:{team_id}", f"team/{team_id}"):
        await books(store, disguise, "a user who is named like a team", balance=0)
        refused(
            await store.charge_credits(disguise, 5),
            "insufficient_credits",
            "charging the team's name as a user",
        )
    refused(await store.deduct_team(member, member, 5), "team_not_found", "a user's id in place of a team's")
    equal((await store.get_team_balance(team_id)).balance, 100, "pool")


async def check_ledgers_are_not_mixed(harness: Harness) -> None:
    store = harness.store
    first, second = await fund(store, 100), await fund(store, 100)
    await charge(store, first, 10)
    equal({row.user_id for row in await rows(store, first)}, {first}, "users of the first's rows")
    equal(len(await rows(store, second)), 1, "rows of the second")


async def check_cursors_grant_no_right(harness: Harness) -> None:
    """A cursor of one user's listing shows no row of that user to another."""
    store = harness.store
    first, second = await fund(store, 100), await fund(store, 100)
    for _ in range(3):
        await charge(store, first, 1)
    page = await store.list_transactions(first, limit=1)
    try:
        stolen = await store.list_transactions(second, cursor=page.next_cursor, limit=50)
    except ValueError:
        return  # Refusing the cursor is as good.
    ensure(
        all(row.user_id == second for row in stolen.transactions),
        f"only the second's own rows, found {stolen!r}",
    )


async def check_malformed_ids_of_reservations_and_transactions(harness: Harness) -> None:
    """Whatever stands in place of an id is refused, and never an error of the store's own."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 10)
    variants: tuple[Any, ...] = (
        reservation_id.upper() + "X",
        reservation_id + "0",
        reservation_id[:-1],
        "0",
        "-1",
        "00000000-0000-0000-0000-000000000000",
        "\u202e" + reservation_id,
        "' OR 1=1 --",
    )
    for bad in variants:
        refused(
            await store.deduct_credits(payer, bad, 1),
            {"reservation_not_found", "invalid_argument"},
            f"deduct of the id {bad!r}",
        )
        refused(
            await store.refund_credits(bad),
            {"transaction_not_found", "invalid_argument"},
            f"refund of the id {bad!r}",
        )
    await books(store, payer, "after malformed ids", balance=100, available=90)
