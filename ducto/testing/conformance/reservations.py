"""Checks of reservations: what a hold is, who gets one, and how it ends without a charge."""

from __future__ import annotations

from datetime import timedelta

from ducto.errors import ReservationNotFoundError
from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    books,
    equal,
    expect,
    fields,
    fund,
    hold,
    in_debt,
    key,
    known,
    raises,
    refused,
    rows,
    user,
)
from ducto.testing.conformance.kit_config import SINGLE, on_plan
from ducto.testing.harness import Harness

_DAY = 86_400


async def check_reserve_holds_without_a_ledger_row(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    result = expect(
        await store.reserve_credits(payer, 40, "chat", {"n": 1}, 5, model="m-1", pricing_version="v-1"),
        "reserve",
    )
    fields(
        result,
        {"user_id": payer, "amount": 40, "held": 40, "balance": 100, "available": 60, "state": "active"},
        "result of a reservation",
    )
    equal(len(await rows(store, payer)), 1, "ledger rows after adding and reserving")
    await books(store, payer, "with a hold of 40", balance=100, available=60)
    found = await store.get_reservation(payer, known(result.reservation_id, "reservation_id"))
    fields(
        found,
        {
            "user_id": payer,
            "team_id": None,
            "amount": 40,
            "held": 40,
            "allowance_held": 0,
            "state": "active",
            "operation_type": "chat",
            "model": "m-1",
            "pricing_version": "v-1",
            "overage": "debt",
            "min_balance": 5,
            "max_settle": 1_000_000,
            "grace_seconds": 60,
            "expires_at": result.expires_at,
            "ended_at": None,
        },
        "get_reservation",
    )
    equal(found.expires_at - found.created_at, timedelta(seconds=600), "default life of a reservation")


async def check_reserve_floor_is_inclusive(harness: Harness) -> None:
    """The floor is 5 where none is given; exactly reaching it passes."""
    store = harness.store
    payer = await fund(store, 100)
    result = refused(await store.reserve_credits(payer, 96, "chat"), "insufficient_credits", "reserve below floor 5")
    fields(
        known(result.details, "details of insufficient_credits"),
        {"required": 96, "available": 100, "balance": 100, "min_balance": 5},
        "details of insufficient_credits",
    )
    equal(result.reservation_id, None, "reservation_id of a refusal")
    expect(await store.reserve_credits(payer, 95, "chat"), "reserve exactly to floor 5")
    refused(
        await store.reserve_credits(payer, 6, "chat", min_balance=0),
        "insufficient_credits",
        "reserve below floor 0",
    )
    refused(
        await store.reserve_credits(payer, 26, "chat", min_balance=-20),
        "insufficient_credits",
        "reserve below floor -20",
    )
    expect(await store.reserve_credits(payer, 25, "chat", min_balance=-20), "reserve exactly to floor -20")
    await books(store, payer, "holds down to -20", balance=100, available=-20)


async def check_reserve_is_refused_to_a_debtor(harness: Harness) -> None:
    store = harness.store
    debtor = await in_debt(store, 10)
    for amount in (0, 1):
        refused(
            await store.reserve_credits(debtor, amount, "chat", min_balance=0),
            "insufficient_credits",
            f"reserve {amount} in debt",
        )


async def check_reserve_zero_needs_no_credits(harness: Harness) -> None:
    """Only a user in real debt is refused a reservation of 0: the floor is `min(0, min_balance)`."""
    store = harness.store
    result = expect(await store.reserve_credits(user(), 0, "chat", min_balance=5), "reserve 0 without credits")
    fields(result, {"amount": 0, "held": 0, "state": "active"}, "reservation of 0")
    debtor = await in_debt(store, 10)
    refused(
        await store.reserve_credits(debtor, 0, "chat", min_balance=-9),
        "insufficient_credits",
        "reserve 0 below -9",
    )
    expect(await store.reserve_credits(debtor, 0, "chat", min_balance=-10), "reserve 0 exactly at floor -10")


async def check_hold_cannot_overflow(harness: Harness) -> None:
    store = harness.store
    rich = await fund(store, MAX_AMOUNT)
    expect(await store.reserve_credits(rich, MAX_AMOUNT, "chat", min_balance=-MAX_AMOUNT), "holding all there is")
    refused(
        await store.reserve_credits(rich, MAX_AMOUNT, "chat", min_balance=-MAX_AMOUNT),
        "overflow",
        "holding more than 2^53-1 in all",
    )
    await books(store, rich, "after a refused hold", balance=MAX_AMOUNT, available=0)


async def check_release_frees_the_hold_once(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 40)
    first = expect(await store.release_reservation(payer, reservation_id), "release")
    fields(first, {"released": True, "state": "released"}, "first release")
    await books(store, payer, "after release", balance=100)
    again = expect(await store.release_reservation(payer, reservation_id), "second release")
    fields(again, {"released": False, "state": "released"}, "second release")
    await books(store, payer, "after a second release", balance=100)
    equal(len(await rows(store, payer)), 1, "ledger rows: a release writes none")


async def check_release_of_a_settled_reservation_tells_so(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 40)
    settled = expect(await store.deduct_credits(payer, reservation_id, 30), "deduct")
    result = expect(await store.release_reservation(payer, reservation_id), "release after deduct")
    fields(
        result,
        {"released": False, "state": "settled", "transaction_id": settled.transaction_id},
        "release after deduct",
    )
    await books(store, payer, "after a late release", balance=70)


async def check_release_of_an_expired_reservation_is_no_error(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 40, ttl_seconds=10)
    await harness.advance(30)
    in_grace = await hold(store, payer, 10, ttl_seconds=10)
    await harness.advance(15)
    fields(
        expect(await store.release_reservation(payer, in_grace), "release within the grace"),
        {"released": True, "state": "released"},
        "release within the grace",
    )
    await harness.advance(100)
    expect(await store.release_reservation(payer, reservation_id), "release after the grace")
    await books(store, payer, "after releasing an expired hold", balance=100)


async def check_max_concurrent_counts_open_reservations(harness: Harness) -> None:
    """Reservations of 0 count; ended and expired ones do not."""
    store = harness.store
    payer = await fund(store, 100)
    first = await hold(store, payer, 0)
    second = await hold(store, payer, 10, ttl_seconds=10)
    result = refused(
        await store.reserve_credits(payer, 1, "chat", min_balance=0, max_concurrent=2),
        "concurrency_limit",
        "third reservation of two",
    )
    fields(
        known(result.details, "details of concurrency_limit"),
        {"active": 2, "max_concurrent": 2},
        "details of concurrency_limit",
    )
    expect(await store.deduct_credits(payer, first, 0), "ending the first")
    expect(await store.reserve_credits(payer, 1, "chat", min_balance=0, max_concurrent=2), "second of two")
    await harness.advance(100)
    equal((await store.get_reservation(payer, second)).state, "expired", "state of the second")
    expect(await store.reserve_credits(payer, 1, "chat", min_balance=0, max_concurrent=2), "after one expired")


async def check_max_concurrent_defaults_to_the_plan(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, SINGLE, credits=100)
    await hold(store, payer, 1)
    refused(
        await store.reserve_credits(payer, 1, "chat", min_balance=0),
        "concurrency_limit",
        "second call of plan's one",
    )
    expect(
        await store.reserve_credits(payer, 1, "chat", min_balance=0, max_concurrent=2),
        "second call with max_concurrent=2 given",
    )


async def check_get_reservation_raises_for_unknown(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    await raises(ReservationNotFoundError, store.get_reservation(payer, key("res")), "unknown reservation")
    refused(
        await store.release_reservation(payer, key("res")),
        "reservation_not_found",
        "releasing an unknown one",
    )
