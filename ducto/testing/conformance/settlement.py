"""Checks of deduct: one ledger row per reservation, whenever and however often it is asked for."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    books,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    key,
    known,
    last_row,
    refused,
    rows,
    user,
)
from ducto.testing.harness import Harness
from ducto.usage import UsageMetrics


async def check_deduct_charges_actual_and_frees_the_rest(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60)
    result = expect(await store.deduct_credits(payer, reservation_id, 25), "deduct 25 of 60")
    fields(
        result,
        {
            "reservation_id": reservation_id,
            "user_id": payer,
            "amount": 25,
            "actual": 25,
            "allowance_consumed": 0,
            "unbilled": 0,
            "overage": 0,
            "balance_after": 75,
            "available": 75,
            "late": False,
            "suspect": False,
            "replayed": False,
        },
        "deduct 25 of 60",
    )
    await books(store, payer, "after deduct", balance=75)
    found = await store.get_reservation(payer, reservation_id)
    fields(found, {"state": "settled", "transaction_id": result.transaction_id}, "reservation after deduct")


async def check_deduct_row_records_the_call(harness: Harness) -> None:
    """The ledger is append-only: what it does not record now can never be explained later."""
    store = harness.store
    payer = await fund(store, 100)
    reserve = expect(
        await store.reserve_credits(payer, 60, "chat", min_balance=0, model="m-1", pricing_version="v-1"),
        "reserve",
    )
    reservation_id = known(reserve.reservation_id, "reservation_id")
    usage = UsageMetrics(model="m-1", input_tokens=7, output_tokens=9, reasoning_tokens=2)
    metadata = {"request_id": "r-1", "extra": {"deep": [1, 2]}}
    expect(
        await store.deduct_credits(payer, reservation_id, 25, None, metadata, usage=usage, estimated=True),
        "deduct",
    )
    equal(len(await rows(store, payer)), 2, "ledger rows after adding and one deduct")
    fields(
        await last_row(store, payer),
        {
            "type": "deduction",
            "amount": -25,
            "actual": 25,
            "charged": 25,
            "unbilled": 0,
            "balance_after": 75,
            "reservation_id": reservation_id,
            "reserved": 60,
            "operation_type": "chat",
            "model": "m-1",
            "pricing_version": "v-1",
            "usage": usage,
            "estimated": True,
            "metadata": metadata,
        },
        "ledger row of a deduct",
    )


async def check_deduct_may_name_another_model(harness: Harness) -> None:
    """A router may have answered with another model than the one that was asked for."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60, model="m-1")
    expect(
        await store.deduct_credits(payer, reservation_id, 5, model="m-2", pricing_version="v-2"),
        "deduct as m-2",
    )
    fields(await last_row(store, payer), {"model": "m-2", "pricing_version": "v-2"}, "row of a deduct as m-2")


async def check_deduct_exactly_the_reserved(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 60)
    reservation_id = await hold(store, payer, 60)
    result = expect(await store.deduct_credits(payer, reservation_id, 60), "deduct all")
    fields(result, {"amount": 60, "overage": 0, "balance_after": 0}, "deduct of exactly the reserved amount")


async def check_deduct_zero_keeps_a_row(harness: Harness) -> None:
    store = harness.store
    payer, idempotency_key = await fund(store, 100), key()
    reservation_id = await hold(store, payer, 60)
    first = expect(await store.deduct_credits(payer, reservation_id, 0, idempotency_key), "deduct 0")
    fields(first, {"amount": 0, "actual": 0, "balance_after": 100, "available": 100}, "deduct 0")
    fields(await last_row(store, payer), {"type": "deduction", "amount": 0, "actual": 0}, "row of a deduct of 0")
    again = expect(await store.deduct_credits(payer, reservation_id, 0, idempotency_key), "deduct 0 again")
    fields(again, {"replayed": True, "transaction_id": first.transaction_id}, "deduct 0 again")
    equal(len(await rows(store, payer)), 2, "ledger rows after deducting 0 twice")


async def check_deduct_replays_by_nature(harness: Harness) -> None:
    """Without a key the reservation is the key: the same amount again gets the first answer, word for word."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60)
    first = expect(await store.deduct_credits(payer, reservation_id, 25), "deduct")
    await fund(store, 500, user_id=payer)
    again = expect(await store.deduct_credits(payer, reservation_id, 25), "the same deduct again")
    ensure(again.replayed, "the same deduct again: expected replayed=True")
    equal(again.model_copy(update={"replayed": False}), first, "replayed answer of a deduct")
    await books(store, payer, "after a replayed deduct", balance=575)


async def check_deduct_with_key_replays_with_and_without_it(harness: Harness) -> None:
    store = harness.store
    payer, idempotency_key = await fund(store, 100), key()
    reservation_id = await hold(store, payer, 60)
    first = expect(await store.deduct_credits(payer, reservation_id, 25, idempotency_key), "deduct with a key")
    await fund(store, 500, user_id=payer)
    for repeated_key in (idempotency_key, None):
        again = expect(await store.deduct_credits(payer, reservation_id, 25, repeated_key), "again")
        equal(
            again,
            first.model_copy(update={"replayed": True}),
            f"deduct again {'with' if repeated_key else 'without'} its key",
        )


async def check_deduct_of_another_amount_is_a_mismatch(harness: Harness) -> None:
    store = harness.store
    for idempotency_key in (None, key()):
        payer = await fund(store, 100)
        reservation_id = await hold(store, payer, 60)
        expect(await store.deduct_credits(payer, reservation_id, 25, idempotency_key), "deduct 25")
        result = refused(
            await store.deduct_credits(payer, reservation_id, 26, idempotency_key),
            "idempotency_mismatch",
            "deduct 26 after 25",
        )
        mismatch = known(known(result.details, "details").mismatch, "details.mismatch")
        ensure("amount" in mismatch, f"details.mismatch names the amount, found {mismatch!r}")
        await books(store, payer, "after a mismatch", balance=75)


async def check_deduct_with_another_key_is_already_settled(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60)
    first = expect(await store.deduct_credits(payer, reservation_id, 25, key()), "deduct")
    result = refused(
        await store.deduct_credits(payer, reservation_id, 25, key()),
        "already_settled",
        "deduct with another key",
    )
    equal(
        known(result.details, "details").transaction_id,
        first.transaction_id,
        "transaction_id of already_settled",
    )
    await books(store, payer, "after already_settled", balance=75)


async def check_deduct_key_names_one_reservation(harness: Harness) -> None:
    """One key for the deducts of two reservations is a mistake, and is told."""
    store = harness.store
    payer, idempotency_key = await fund(store, 100), key()
    first, second = await hold(store, payer, 10), await hold(store, payer, 10)
    expect(await store.deduct_credits(payer, first, 10, idempotency_key), "deduct the first")
    refused(
        await store.deduct_credits(payer, second, 10, idempotency_key),
        "idempotency_mismatch",
        "deducting the second under the first's key",
    )
    await books(store, payer, "after a mismatch", balance=90, available=80)


async def check_deduct_after_release_is_refused(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60)
    expect(await store.release_reservation(payer, reservation_id), "release")
    refused(await store.deduct_credits(payer, reservation_id, 5), "reservation_released", "deduct after release")
    await books(store, payer, "after a refused deduct", balance=100)


async def check_deduct_of_an_unknown_reservation_is_refused(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    refused(await store.deduct_credits(payer, key("res"), 5), "reservation_not_found", "deduct of an unknown id")
    refused(
        await store.deduct_credits(user(), key("res"), 5),
        "reservation_not_found",
        "deduct of an unknown user",
    )
    await books(store, payer, "after a refused deduct", balance=100)


async def check_bad_amount_leaves_the_reservation_active(harness: Harness) -> None:
    """A negative amount must not lower a bill, and must not end the hold either."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60)
    refused(await store.deduct_credits(payer, reservation_id, -5), "invalid_amount", "deduct of -5")
    equal((await store.get_reservation(payer, reservation_id)).state, "active", "state after a refused deduct")
    await books(store, payer, "after a refused deduct", balance=100, available=40)
    expect(await store.deduct_credits(payer, reservation_id, 60), "deduct with a good amount")


async def check_deduct_within_grace_is_normal(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60, ttl_seconds=100, overage="reject")
    await harness.advance(130)
    result = expect(await store.deduct_credits(payer, reservation_id, 60), "deduct within the grace")
    fields(result, {"late": False, "amount": 60, "overage": 0}, "deduct within the grace")


async def check_deduct_after_grace_is_charged_late(harness: Harness) -> None:
    """The work was done: a hold that expired must not make it free. Also where that makes debt."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60, ttl_seconds=10)
    await harness.advance(100)
    expect(await store.charge_credits(payer, 90), "spending what the hold had held")
    result = expect(await store.deduct_credits(payer, reservation_id, 50), "deduct after the grace")
    fields(
        result,
        {"late": True, "amount": 50, "actual": 50, "unbilled": 0, "overage": 50, "balance_after": -40},
        "deduct after the grace",
    )
    fields(await last_row(store, payer), {"late": True, "amount": -50}, "ledger row of a late deduct")
    again = expect(await store.deduct_credits(payer, reservation_id, 50), "late deduct again")
    ensure(again.replayed, "a late deduct is settled once")
    await books(store, payer, "after a late deduct", balance=-40)


async def check_deduct_after_the_reaper_is_charged_late(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 60, ttl_seconds=10)
    await harness.advance(100)
    await store.reap_expired_reservations()
    result = expect(await store.deduct_credits(payer, reservation_id, 50), "deduct after the reaper")
    fields(result, {"late": True, "amount": 50, "balance_after": 50}, "deduct after the reaper")
    equal((await store.get_reservation(payer, reservation_id)).state, "settled", "state after a late deduct")


async def check_late_deduct_follows_the_overage_policy(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    strict = await hold(store, payer, 30, ttl_seconds=10, overage="reject")
    clamped = await hold(store, payer, 30, ttl_seconds=10, overage="clamp", min_balance=5)
    await harness.advance(100)
    refused(await store.deduct_credits(payer, strict, 10), "reservation_expired", "late deduct with `reject`")
    expect(await store.charge_credits(payer, 80), "spending 80 of 100")
    result = expect(await store.deduct_credits(payer, clamped, 30), "late deduct with `clamp`")
    fields(
        result,
        {"late": True, "actual": 30, "amount": 15, "unbilled": 15, "balance_after": 5},
        "late deduct of 30 with `clamp`, 20 left and floor 5",
    )


async def check_deduct_cannot_overflow(harness: Harness) -> None:
    store = harness.store
    payer = user()
    result = expect(
        await store.reserve_credits(payer, 0, "chat", min_balance=-MAX_AMOUNT, max_settle=MAX_AMOUNT),
        "reserve 0",
    )
    reservation_id = known(result.reservation_id, "reservation_id")
    expect(await store.charge_credits(payer, MAX_AMOUNT, force=True), "the largest debt")
    refused(await store.deduct_credits(payer, reservation_id, 1), "overflow", "deduct below the largest debt")
    equal((await store.get_reservation(payer, reservation_id)).state, "active", "state after overflow")
    await books(store, payer, "after overflow", balance=-MAX_AMOUNT)


async def check_debt_never_hinders_the_end_of_a_call(harness: Harness) -> None:
    """Deduct, release and refund are always allowed; only new calls are refused."""
    store = harness.store
    payer = await fund(store, 100)
    settled, released = await hold(store, payer, 30), await hold(store, payer, 30)
    forced = expect(await store.charge_credits(payer, 500, force=True), "forced charge")
    refused(await store.reserve_credits(payer, 1, "chat"), "insufficient_credits", "a new call in debt")
    expect(await store.deduct_credits(payer, settled, 20), "deduct in debt")
    expect(await store.release_reservation(payer, released), "release in debt")
    expect(await store.refund_credits(known(forced.transaction_id, "transaction_id")), "refund in debt")
    await books(store, payer, "at the end", balance=80)
