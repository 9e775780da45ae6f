"""Checks of teams: a shared pool, its members and their caps."""

from __future__ import annotations

from typing import Any

from ducto.errors import TeamNotFoundError
from ducto.models import SpendCap
from ducto.testing.conformance.helpers import (
    books,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    just_before,
    key,
    known,
    next_month,
    raises,
    refused,
    rows,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import FREE, PLANLESS_FEATURE, PRO, on_plan
from ducto.testing.harness import Harness


async def check_create_team_books_its_first_credits(harness: Harness) -> None:
    store = harness.store
    made = expect(await store.create_team("Bees", 100), "create_team")
    fields(made, {"name": "Bees", "balance": 100}, "a new team")
    team_id = known(made.team_id, "team_id")
    fields(
        await store.get_team_balance(team_id),
        {"team_id": team_id, "name": "Bees", "balance": 100, "held": 0, "available": 100, "member_count": 0},
        "balance of a new team",
    )
    equal([row.amount for row in await rows(store, team_id=team_id)], [100], "ledger rows of a new team")
    empty = expect(await store.create_team("Bees"), "a second team of the same name, without credits")
    ensure(empty.team_id != team_id, "every team has its own id")
    refused(await store.create_team("Bees", -1), "invalid_amount", "a team with -1 credits")
    for name in ("", "a\x00b"):
        refused(await store.create_team(name), "invalid_argument", f"a team named {name!r}")


async def check_unknown_team_is_told(harness: Harness) -> None:
    store, member, ghost = harness.store, await fund(harness.store, 10), key("team")
    await raises(TeamNotFoundError, store.get_team_balance(ghost), "balance of an unknown team")
    await raises(TeamNotFoundError, store.get_team_members(ghost), "members of an unknown team")
    await raises(TeamNotFoundError, store.remove_team_member(ghost, member), "removal from an unknown team")
    refused(await store.add_team_member(ghost, member), "team_not_found", "add_team_member")
    refused(await store.set_member_cap(ghost, member, 5), "team_not_found", "set_member_cap")
    refused(await store.add_team_credits(ghost, 5), "team_not_found", "add_team_credits")
    refused(await store.deduct_team(ghost, member, 5), "team_not_found", "deduct_team")
    refused(await store.reserve_credits(member, 5, "chat", team_id=ghost), "team_not_found", "reserve for a team")
    refused(await store.delete_team(ghost), "team_not_found", "delete_team")


async def check_team_pool_pays(harness: Harness) -> None:
    store = harness.store
    member = await fund(store, 7)
    team_id = await team_of(store, member, credits=100)
    result = expect(await store.deduct_team(team_id, member, 30, model="m-1"), "deduct_team")
    fields(
        result,
        {"team_id": team_id, "user_id": member, "amount": 30, "balance_after": 70, "available": 70},
        "deduct_team of 30",
    )
    newest = (await rows(store, team_id=team_id))[0]
    fields(
        newest,
        {
            "team_id": team_id,
            "user_id": member,
            "amount": -30,
            "type": "charge",
            "model": "m-1",
            "balance_after": 70,
        },
        "the team's row carries the member",
    )
    await books(store, member, "the member's own credits", balance=7)
    equal(len(await rows(store, member)), 1, "the member's own rows: no team row among them")
    equal(
        [row.transaction_id for row in await rows(store, member, team_id=team_id)],
        [result.transaction_id],
        "the member's rows in the team",
    )


async def check_team_charge_counts_holds_and_floor(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100)
    await hold(store, member, 60, team_id=team_id)
    refused(await store.deduct_team(team_id, member, 41), "insufficient_credits", "charge 41 of free 40")
    refused(
        await store.deduct_team(team_id, member, 31, min_balance=10),
        "insufficient_credits",
        "charge 31, floor 10",
    )
    expect(await store.deduct_team(team_id, member, 30, min_balance=10), "charge exactly to the floor")
    expect(await store.deduct_team(team_id, member, 50, force=True), "forced charge")
    fields(
        await store.get_team_balance(team_id),
        {"balance": 20, "held": 60, "available": -40},
        "pool after a forced charge",
    )


async def check_team_reservation_lives_on_the_pool(harness: Harness) -> None:
    store = harness.store
    member = await fund(store, 7)
    team_id = await team_of(store, member, credits=100)
    result = expect(await store.reserve_credits(member, 60, "chat", team_id=team_id), "reserve for the team")
    fields(
        result,
        {"user_id": member, "team_id": team_id, "held": 60, "balance": 100, "available": 40},
        "reservation of a team",
    )
    reservation_id = known(result.reservation_id, "reservation_id")
    fields(
        await store.get_available(member, team_id=team_id),
        {"balance": 100, "held": 60, "available": 40},
        "pool",
    )
    await books(store, member, "the member's own credits", balance=7)
    equal((await store.get_reservation(member, reservation_id)).team_id, team_id, "team of the reservation")
    settled = expect(await store.deduct_credits(member, reservation_id, 25), "deduct")
    fields(
        settled,
        {"team_id": team_id, "user_id": member, "amount": 25, "balance_after": 75},
        "deduct for a team",
    )
    freed = known(
        expect(await store.reserve_credits(member, 70, "chat", team_id=team_id), "reserve").reservation_id,
        "id",
    )
    expect(await store.release_reservation(member, freed), "release")
    fields(await store.get_team_balance(team_id), {"balance": 75, "held": 0, "available": 75}, "pool at the end")


async def check_strangers_do_not_spend_the_pool(harness: Harness) -> None:
    store, member, stranger = harness.store, user(), await fund(harness.store, 100)
    team_id = await team_of(store, member, credits=100)
    refused(await store.deduct_team(team_id, stranger, 5), "not_a_member", "deduct_team by a stranger")
    refused(
        await store.reserve_credits(stranger, 5, "chat", team_id=team_id),
        "not_a_member",
        "reserve by a stranger",
    )
    refused(await store.set_member_cap(team_id, stranger, 5), "not_a_member", "cap of a stranger")
    equal((await store.get_team_balance(team_id)).available, 100, "pool after refusals")


async def check_member_cap_counts_spent_and_held(harness: Harness) -> None:
    store, member, colleague = harness.store, user(), user()
    team_id = await team_of(store, member, colleague, credits=1000)
    expect(await store.set_member_cap(team_id, member, 100), "set_member_cap")
    expect(await store.deduct_team(team_id, member, 40), "charge 40")
    reservation_id = await hold(store, member, 40, team_id=team_id)
    for result in (
        await store.deduct_team(team_id, member, 21),
        await store.reserve_credits(member, 21, "chat", team_id=team_id),
    ):
        refused(result, "member_cap_reached", "21 beside 40 spent and 40 held of 100")
        fields(known(result.details, "details"), {"limit": 100, "spent": 40, "held": 40}, "details of the cap")
    expect(await store.deduct_team(team_id, member, 20), "exactly to the cap")
    expect(await store.deduct_team(team_id, colleague, 500), "a colleague's spending is not the member's")
    expect(await store.deduct_credits(member, reservation_id, 10), "deduct 10 of 40")
    found = {entry.user_id: entry for entry in await store.get_team_members(team_id)}
    fields(found[member], {"spend_cap": 100, "spent": 70, "held": 0}, "the member's counters")
    fields(found[colleague], {"spend_cap": None, "spent": 500, "held": 0}, "the colleague's counters")
    expect(await store.deduct_team(team_id, member, 30), "the rest of the cap")


async def check_member_cap_of_zero_and_none(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100, spend_cap=0)
    refused(await store.deduct_team(team_id, member, 1), "member_cap_reached", "charge 1 under a cap of 0")
    expect(await store.set_member_cap(team_id, member, None), "removing the cap")
    expect(await store.deduct_team(team_id, member, 100), "charge without a cap")


async def check_member_cap_counts_the_whole_life_or_the_month(harness: Harness) -> None:
    store, lifelong, monthly = harness.store, user(), user()
    await just_before(harness, next_month)
    team_id = await team_of(store, lifelong, credits=1000, spend_cap=100)
    expect(
        await store.add_team_member(team_id, monthly, spend_cap=100, spend_cap_window="month"),
        "a cap for each month",
    )
    for member in (lifelong, monthly):
        expect(await store.deduct_team(team_id, member, 60), "60 in the first month")
    late = await hold(store, monthly, 40, team_id=team_id)
    await harness.advance(60)
    refused(await store.deduct_team(team_id, lifelong, 41), "member_cap_reached", "101 of 100 in a lifetime")
    expect(await store.deduct_credits(monthly, late, 40), "deduct of the first month's reservation")
    expect(await store.deduct_team(team_id, monthly, 100), "100 of 100 in the second month")
    refused(await store.deduct_team(team_id, monthly, 1), "member_cap_reached", "101 of 100 in the second month")
    found = {entry.user_id: entry for entry in await store.get_team_members(team_id)}
    fields(found[monthly], {"spend_cap_window": "month", "spent": 100, "held": 0}, "counters of the month")
    fields(found[lifelong], {"spend_cap_window": "lifetime", "spent": 60}, "counters of the lifetime")


async def check_member_can_be_changed_and_listed(harness: Harness) -> None:
    store = harness.store
    first, second = sorted([user(), user()])
    team_id = await team_of(store, second, first, credits=100)
    fields(
        expect(await store.add_team_member(team_id, first, "admin", 50), "adding a member again"),
        {"team_id": team_id, "user_id": first, "role": "admin", "spend_cap": 50},
        "a member added again",
    )
    found = await store.get_team_members(team_id)
    equal([entry.user_id for entry in found], [first, second], "members by user id")
    fields(found[0], {"role": "admin", "spend_cap": 50, "team_id": team_id}, "the changed member")
    fields(found[1], {"role": "member", "spend_cap": None}, "the other member")
    equal((await store.get_team_balance(team_id)).member_count, 2, "member_count")
    equal(await store.remove_team_member(team_id, second), True, "removing a member")
    equal(await store.remove_team_member(team_id, second), False, "removing nobody")
    equal((await store.get_team_balance(team_id)).member_count, 1, "member_count after a removal")


async def check_removed_members_reservations_settle(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100)
    settled, released = (
        await hold(store, member, 30, team_id=team_id),
        await hold(store, member, 30, team_id=team_id),
    )
    await store.remove_team_member(team_id, member)
    equal((await store.get_team_balance(team_id)).held, 60, "holds after the removal")
    refused(
        await store.reserve_credits(member, 1, "chat", team_id=team_id),
        "not_a_member",
        "a new call after the removal",
    )
    expect(await store.deduct_credits(member, settled, 20), "deduct after the removal")
    expect(await store.release_reservation(member, released), "release after the removal")
    fields(await store.get_team_balance(team_id), {"balance": 80, "held": 0}, "pool at the end")


async def check_personal_caps_and_allowance_stay_out_of_teams(harness: Harness) -> None:
    store = harness.store
    member = await on_plan(store, FREE, credits=50)
    await store.set_spend_cap(SpendCap(user_id=member, cap_type="monthly", limit=0))
    team_id = await team_of(store, member, credits=100)
    expect(await store.deduct_team(team_id, member, 40), "charge of the team under a personal cap of 0")
    equal((await store.get_team_balance(team_id)).balance, 60, "the pool paid all of it")
    reservation_id = await hold(store, member, 60, team_id=team_id)
    expect(await store.deduct_credits(member, reservation_id, 60), "deduct for the team")
    fields(
        await store.check_allowance(member),
        {"used": 0, "held": 0, "remaining": 100},
        "the member's allowance",
    )
    fields(await store.check_spend_cap(member), {"spent": 0, "held": 0}, "the member's own cap")
    await books(store, member, "the member's own credits", balance=50)


async def check_features_follow_the_members_plan(harness: Harness) -> None:
    store = harness.store
    entitled, without = await on_plan(store, PRO), await on_plan(store, FREE)
    team_id = await team_of(store, entitled, without, credits=100)
    expect(await store.deduct_team(team_id, entitled, 1, feature=PLANLESS_FEATURE), "charge with the feature")
    refused(
        await store.deduct_team(team_id, without, 1, feature=PLANLESS_FEATURE),
        "feature_not_entitled",
        "charge without the feature",
    )
    refused(
        await store.reserve_credits(without, 1, "chat", team_id=team_id, feature=PLANLESS_FEATURE),
        "feature_not_entitled",
        "reserve without the feature",
    )


async def check_concurrency_counts_per_member(harness: Harness) -> None:
    store, first, second = harness.store, user(), user()
    team_id = await team_of(store, first, second, credits=100)
    for member in (first, second):
        expect(
            await store.reserve_credits(member, 1, "chat", team_id=team_id, max_concurrent=1),
            "a member's one call",
        )
    refused(
        await store.reserve_credits(first, 1, "chat", team_id=team_id, max_concurrent=1),
        "concurrency_limit",
        "a member's second call",
    )


async def check_team_is_deleted_only_when_empty(harness: Harness) -> None:
    """Credits, debt and open reservations keep it; its ledger outlives it."""
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100)
    refused(await store.delete_team(team_id), "team_not_empty", "deleting a team with credits")
    reservation_id = await hold(store, member, 0, team_id=team_id)
    charged = expect(await store.deduct_team(team_id, member, 100), "spending the pool")
    refused(await store.delete_team(team_id), "team_not_empty", "deleting a team with an open reservation")
    expect(await store.release_reservation(member, reservation_id), "release")
    expect(await store.deduct_team(team_id, member, 5, force=True), "debt")
    refused(await store.delete_team(team_id), "team_not_empty", "deleting a team in debt")
    expect(await store.add_team_credits(team_id, 5), "repaying")
    fields(
        expect(await store.delete_team(team_id), "deleting an empty team"),
        {"deleted": True, "team_id": team_id},
        "deletion",
    )
    await raises(TeamNotFoundError, store.get_team_balance(team_id), "balance of a deleted team")
    refused(await store.deduct_team(team_id, member, 0), "team_not_found", "charge of a deleted team")
    row = await store.get_transaction(known(charged.transaction_id, "transaction_id"))
    equal(row.amount, -100, "a deleted team's ledger row")


async def check_bad_member_arguments_are_refused(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member)
    window: Any = "week"
    refused(
        await store.add_team_member(team_id, member, spend_cap=5, spend_cap_window=window),
        "invalid_argument",
        "an unknown window",
    )
    for cap in (-1, True, 1.5, "5"):
        bad: Any = cap
        refused(await store.set_member_cap(team_id, member, bad), "invalid_amount", f"a cap of {cap!r}")
    for role in ("", "a\x00b"):
        refused(await store.add_team_member(team_id, member, role), "invalid_argument", f"the role {role!r}")
