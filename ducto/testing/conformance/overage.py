"""Checks of calls that cost more than was reserved: debt, clamp, reject, and the bound on what is believed."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    books,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    known,
    last_row,
    refused,
    user,
)
from ducto.testing.harness import Harness


async def check_debt_charges_everything(harness: Harness) -> None:
    """`debt` takes what is free, and what others hold is then missing from `available`."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50)
    await hold(store, payer, 30)
    result = expect(await store.deduct_credits(payer, reservation_id, 90), "deduct 90 of 50")
    fields(
        result,
        {"amount": 90, "actual": 90, "unbilled": 0, "overage": 40, "balance_after": 10, "available": -20},
        "overage with `debt`",
    )
    fields(
        await last_row(store, payer),
        {"amount": -90, "actual": 90, "charged": 90, "unbilled": 0, "reserved": 50},
        "ledger row of an overage",
    )
    await books(store, payer, "after an overage", balance=10, available=-20)


async def check_debt_goes_below_zero(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, min_balance=5)
    result = expect(await store.deduct_credits(payer, reservation_id, 130), "deduct 130 of a balance of 100")
    fields(result, {"amount": 130, "unbilled": 0, "balance_after": -30}, "overage into debt")
    refused(await store.reserve_credits(payer, 0, "chat"), "insufficient_credits", "the next call in debt")
    await books(store, payer, "in debt", balance=-30)


async def check_clamp_charges_to_the_floor(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, min_balance=5, overage="clamp")
    result = expect(await store.deduct_credits(payer, reservation_id, 200), "deduct 200 with `clamp`")
    fields(
        result,
        {"amount": 95, "actual": 200, "unbilled": 105, "overage": 45, "balance_after": 5},
        "`clamp` with a floor of 5",
    )
    fields(
        await last_row(store, payer),
        {"actual": 200, "charged": 95, "unbilled": 105},
        "ledger row of a clamped call",
    )
    await books(store, payer, "after a clamped call", balance=5)


async def check_clamp_leaves_other_holds_alone(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, min_balance=5, overage="clamp")
    other = await hold(store, payer, 20)
    result = expect(await store.deduct_credits(payer, reservation_id, 200), "deduct 200 with `clamp`")
    fields(result, {"amount": 75, "unbilled": 125, "balance_after": 25}, "`clamp` beside a hold of 20")
    expect(await store.deduct_credits(payer, other, 20), "the other call settles in full")
    await books(store, payer, "after both", balance=5)


async def check_clamp_charges_the_reserved_amount_in_any_case(harness: Harness) -> None:
    """What the reservation held is charged even if the account has meanwhile fallen below the floor."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, min_balance=5, overage="clamp")
    expect(await store.charge_credits(payer, 100, force=True), "forced charge")
    result = expect(await store.deduct_credits(payer, reservation_id, 80), "deduct 80 with `clamp`")
    fields(result, {"amount": 50, "unbilled": 30, "balance_after": -50}, "`clamp` below the floor")


async def check_clamp_within_the_reservation_is_normal(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, overage="clamp")
    result = expect(await store.deduct_credits(payer, reservation_id, 50), "deduct all of the reservation")
    fields(result, {"amount": 50, "unbilled": 0, "overage": 0}, "`clamp` without overage")


async def check_reject_keeps_the_reservation_active(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, overage="reject")
    refused(await store.deduct_credits(payer, reservation_id, 51), "exceeds_reservation", "deduct 51 of 50")
    equal(
        (await store.get_reservation(payer, reservation_id)).state,
        "active",
        "state after exceeds_reservation",
    )
    await books(store, payer, "after exceeds_reservation", balance=100, available=50)
    expect(await store.deduct_credits(payer, reservation_id, 50), "deduct 50 of 50")


async def check_max_settle_bounds_what_is_believed(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    result = expect(await store.reserve_credits(payer, 50, "chat", min_balance=0, max_settle=60), "reserve")
    reservation_id = known(result.reservation_id, "reservation_id")
    deducted = expect(await store.deduct_credits(payer, reservation_id, 100), "deduct 100 with max_settle=60")
    fields(
        deducted,
        {"amount": 60, "actual": 100, "unbilled": 40, "suspect": True, "overage": 10, "balance_after": 940},
        "deduct above max_settle",
    )
    fields(await last_row(store, payer), {"suspect": True, "charged": 60, "unbilled": 40}, "row above max_settle")


async def check_max_settle_exactly_is_not_suspect(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    result = expect(await store.reserve_credits(payer, 50, "chat", min_balance=0, max_settle=60), "reserve")
    reservation_id = known(result.reservation_id, "reservation_id")
    deducted = expect(await store.deduct_credits(payer, reservation_id, 60), "deduct exactly max_settle")
    fields(deducted, {"amount": 60, "unbilled": 0, "suspect": False}, "deduct of exactly max_settle")


async def check_max_settle_default(harness: Harness) -> None:
    """Ten times what was reserved, and 1,000,000 at least."""
    store = harness.store
    payer = await fund(store, 10_000_000)
    for amount, bound in ((0, 1_000_000), (100_000, 1_000_000), (100_001, 1_000_010), (200_000, 2_000_000)):
        reservation_id = await hold(store, payer, amount)
        found = await store.get_reservation(payer, reservation_id)
        equal(found.max_settle, bound, f"max_settle of a reservation of {amount}")
        expect(await store.release_reservation(payer, reservation_id), "release")


async def check_overage_identity_holds_for_every_policy(harness: Harness) -> None:
    """`amount + allowance_consumed + unbilled = actual`, and the row says the same."""
    store = harness.store
    for overage in ("debt", "clamp"):
        for actual in (0, 10, 40, 41, 95, 101, 2_000_000):
            payer = await fund(store, 100)
            reservation_id = await hold(store, payer, 40, overage=overage)
            result = expect(await store.deduct_credits(payer, reservation_id, actual), f"{overage} {actual}")
            equal(
                result.amount + result.allowance_consumed + result.unbilled,
                actual,
                f"amount + allowance_consumed + unbilled with {overage}",
            )
            row = await last_row(store, payer)
            equal(row.charged + row.unbilled, row.actual, f"charged + unbilled of the row with {overage}")
            ensure(row.charged <= 1_000_000, f"charged <= max_settle, found {row.charged}")


async def check_reservation_keeps_its_policy(harness: Harness) -> None:
    """Floor and overage policy are those of the admission, whatever later calls ask for."""
    store = harness.store
    payer = await fund(store, 100)
    clamped = await hold(store, payer, 10, min_balance=20, overage="clamp")
    await hold(store, payer, 10, min_balance=-500, overage="debt")
    result = expect(await store.deduct_credits(payer, clamped, 500), "deduct 500 with `clamp`")
    fields(result, {"amount": 70, "unbilled": 430, "available": 20}, "`clamp` keeps the floor of its admission")


async def check_unknown_overage_policy_is_refused(harness: Harness) -> None:
    store = harness.store
    policy: object = "forgive"
    result = await store.reserve_credits(user(), 0, "chat", overage=policy)  # type: ignore[arg-type]
    refused(result, "invalid_argument", "unknown overage policy")
