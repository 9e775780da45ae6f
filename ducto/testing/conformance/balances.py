"""Checks of balances: what an unknown user has, adding, adjusting, charging, and the largest amount."""

from __future__ import annotations

from typing import Any

from ducto.errors import NotSupportedError
from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    books,
    ensure,
    equal,
    event_cursor,
    events_since,
    expect,
    fields,
    fund,
    hold,
    in_debt,
    known,
    last_row,
    refused,
    rows,
    soon,
    user,
)
from ducto.testing.harness import Harness, SkewableHarness


async def check_unknown_user_has_nothing(harness: Harness) -> None:
    """Balance, ledger, caps and reports of a user that nobody has heard of."""
    store, stranger = harness.store, user("stranger")
    fields(
        await store.get_balance(stranger),
        {"user_id": stranger, "balance": 0, "lifetime_purchased": 0},
        "balance of an unknown user",
    )
    await books(store, stranger, "unknown user", balance=0)
    equal(await rows(store, stranger), [], "ledger rows of an unknown user")
    equal(await store.list_spend_caps(stranger), [], "caps of an unknown user")
    ensure((await store.check_spend_cap(stranger, amount=5)).allowed, "no cap of an unknown user refuses")


async def check_reads_and_denials_create_no_row(harness: Harness) -> None:
    """Reading about a user, or refusing one, leaves no trace of it."""
    store, stranger = harness.store, user("stranger")
    cursor = await event_cursor(store)
    await store.get_balance(stranger)
    await store.get_available(stranger)
    await store.get_user_plan(stranger)
    await store.check_allowance(stranger)
    await store.check_spend_cap(stranger)
    refused(await store.reserve_credits(stranger, 10, "chat"), "insufficient_credits", "reserve without funds")
    refused(await store.charge_credits(stranger, 10), "insufficient_credits", "charge without funds")
    refused(await store.add_credits(stranger, -1), "invalid_amount", "adding -1")
    equal(await rows(store, stranger), [], "ledger rows after reads and denials")
    equal(await events_since(store, cursor, stranger), [], "events after reads and denials")


async def check_add_credits_raises_the_balance(harness: Harness) -> None:
    store, payer = harness.store, user()
    total = 0
    for kind, amount in (("purchase", 100), ("grant", 20), ("bonus", 3), ("adjustment", 4)):
        total += amount
        any_kind: Any = kind
        result = expect(await store.add_credits(payer, amount, any_kind), f"adding a {kind}")
        fields(
            result,
            {"user_id": payer, "amount": amount, "new_balance": total, "lifetime_purchased": 100},
            f"adding a {kind}",
        )
        fields(
            await last_row(store, payer),
            {"type": kind, "amount": amount, "balance_after": total, "user_id": payer},
            f"ledger row of a {kind}",
        )
    await books(store, payer, "after four additions", balance=total)


async def check_lifetime_purchased_counts_purchases_alone(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 40)
    await fund(store, 60, user_id=payer)
    await fund(store, 7, user_id=payer, type="bonus")
    expect(await store.charge_credits(payer, 90), "charging 90 of 107")
    equal((await store.get_balance(payer)).lifetime_purchased, 100, "lifetime_purchased after spending")


async def check_add_repays_debt_first(harness: Harness) -> None:
    store = harness.store
    debtor = await in_debt(store, 50)
    first = expect(await store.add_credits(debtor, 30), "adding 30 to a debt of 50")
    equal(first.new_balance, -20, "new_balance of a debt partly repaid")
    await fund(store, 100, user_id=debtor)
    await books(store, debtor, "after repaying", balance=80)


async def check_expiring_credits_repay_debt_first(harness: Harness) -> None:
    """Only what is left after the debt expires; the debt does not come back."""
    store = harness.store
    debtor = await in_debt(store, 50)
    await fund(store, 80, user_id=debtor, type="grant", expires_at=await soon(harness, 100))
    await books(store, debtor, "debt of 50 and a grant of 80", balance=30)
    await harness.advance(200)
    await books(store, debtor, "after the grant expired", balance=0)


async def check_add_refuses_unknown_type_and_past_expiry(harness: Harness) -> None:
    store, payer = harness.store, user()
    unknown: Any = "gift"
    refused(await store.add_credits(payer, 5, unknown), "invalid_argument", "adding credits of an unknown type")
    past = await soon(harness, -1)
    refused(
        await store.add_credits(payer, 5, "grant", expires_at=past),
        "invalid_argument",
        "adding credits that have expired already",
    )
    naive = (await soon(harness, 1000)).replace(tzinfo=None)
    refused(
        await store.add_credits(payer, 5, "grant", expires_at=naive),
        "invalid_argument",
        "adding credits that expire at a time without zone",
    )
    equal(await rows(store, payer), [], "ledger rows after refused additions")


async def check_adjust_moves_both_ways(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    up = expect(await store.adjust_credits(payer, 20, direction="credit"), "crediting 20")
    fields(up, {"amount": 20, "new_balance": 120}, "credit of 20")
    down = expect(await store.adjust_credits(payer, 50, direction="debit"), "debiting 50")
    fields(down, {"amount": -50, "new_balance": 70}, "debit of 50 (amount is signed)")
    equal((await store.get_balance(payer)).lifetime_purchased, 100, "lifetime_purchased after adjustments")
    await books(store, payer, "after two adjustments", balance=70)


async def check_adjust_debit_keeps_the_floor(harness: Harness) -> None:
    """A debit leaves `min_balance` available, holds not counted as available, unless it is forced."""
    store = harness.store
    payer = await fund(store, 100)
    await hold(store, payer, 30)
    refused(
        await store.adjust_credits(payer, 71, direction="debit"),
        "insufficient_credits",
        "debit of 71 of free 70",
    )
    refused(
        await store.adjust_credits(payer, 61, direction="debit", min_balance=10),
        "insufficient_credits",
        "debit of 61 of free 70 with floor 10",
    )
    expect(await store.adjust_credits(payer, 60, direction="debit", min_balance=10), "debit exactly to the floor")
    expect(await store.adjust_credits(payer, 50, direction="debit", force=True), "forced debit")
    await books(store, payer, "after a forced debit", balance=-10, available=-40)


async def check_adjust_refuses_unknown_direction_and_zero(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    sideways: Any = "sideways"
    refused(await store.adjust_credits(payer, 1, direction=sideways), "invalid_argument", "unknown direction")
    refused(await store.adjust_credits(payer, 0, direction="debit"), "invalid_amount", "debit of 0")
    refused(await store.adjust_credits(payer, 0, direction="credit"), "invalid_amount", "credit of 0")
    refused(await store.add_credits(payer, 0), "invalid_amount", "adding 0")
    await books(store, payer, "after refused adjustments", balance=10)


async def check_charge_counts_holds(harness: Harness) -> None:
    """A direct charge may take what is available, not what other calls hold."""
    store = harness.store
    payer = await fund(store, 100)
    await hold(store, payer, 60)
    result = refused(await store.charge_credits(payer, 41), "insufficient_credits", "charge of 41 of free 40")
    fields(
        known(result.details, "details of insufficient_credits"),
        {"required": 41, "available": 40, "balance": 100, "min_balance": 0},
        "details of insufficient_credits",
    )
    await books(store, payer, "after a refused charge", balance=100, available=40)
    expect(await store.charge_credits(payer, 40), "charge of exactly what is free")
    await books(store, payer, "after a charge beside a hold", balance=60, available=0)


async def check_charge_floor_is_inclusive(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    refused(
        await store.charge_credits(payer, 91, min_balance=10),
        "insufficient_credits",
        "charge below the floor",
    )
    expect(await store.charge_credits(payer, 90, min_balance=10), "charge exactly to the floor")
    expect(await store.charge_credits(payer, 10), "charge exactly to 0, the default floor")
    refused(await store.charge_credits(payer, 6, min_balance=-5), "insufficient_credits", "charge below -5")
    expect(await store.charge_credits(payer, 5, min_balance=-5), "charge exactly to a floor of -5")
    await books(store, payer, "after charges to the floor", balance=-5)


async def check_charge_writes_one_row(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    result = expect(
        await store.charge_credits(
            payer, 30, "embed", {"note": "n"}, model="m-1", pricing_version="v-1", estimated=True
        ),
        "charging 30",
    )
    fields(
        result,
        {"user_id": payer, "amount": 30, "actual": 30, "balance_after": 70, "unbilled": 0, "late": False},
        "result of a charge",
    )
    found = await rows(store, payer)
    equal(len(found), 2, "ledger rows after one addition and one charge")
    fields(
        found[0],
        {
            "transaction_id": result.transaction_id,
            "type": "charge",
            "amount": -30,
            "actual": 30,
            "charged": 30,
            "unbilled": 0,
            "balance_after": 70,
            "operation_type": "embed",
            "model": "m-1",
            "pricing_version": "v-1",
            "estimated": True,
            "forced": False,
        },
        "ledger row of a charge",
    )


async def check_charge_zero_asks_only_for_no_debt(harness: Harness) -> None:
    store = harness.store
    expect(await store.charge_credits(user(), 0), "charging 0 of an unknown user")
    debtor = await in_debt(store, 10)
    refused(await store.charge_credits(debtor, 0), "insufficient_credits", "charging 0 of a user in debt")
    expect(await store.charge_credits(debtor, 0, min_balance=-10), "charging 0 of a debt that the floor allows")


async def check_forced_charge_always_books(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    result = expect(await store.charge_credits(payer, 25, force=True), "forced charge")
    fields(result, {"amount": 25, "actual": 25, "unbilled": 0, "balance_after": -15}, "forced charge")
    fields(await last_row(store, payer), {"forced": True, "amount": -25}, "ledger row of a forced charge")
    refused(await store.charge_credits(payer, 1), "insufficient_credits", "charge of a user in debt")
    await books(store, payer, "after a forced charge", balance=-15)


async def check_overflow_writes_nothing(harness: Harness) -> None:
    """No balance leaves [-(2^53-1), 2^53-1]."""
    store = harness.store
    rich = await fund(store, MAX_AMOUNT)
    refused(await store.add_credits(rich, 1), "overflow", "adding 1 to the largest balance")
    refused(await store.adjust_credits(rich, 1, direction="credit"), "overflow", "crediting the largest balance")
    await books(store, rich, "after refused additions", balance=MAX_AMOUNT)
    equal(len(await rows(store, rich)), 1, "ledger rows after refused additions")
    expect(await store.charge_credits(rich, MAX_AMOUNT), "charging the largest balance")

    poor = await in_debt(store, MAX_AMOUNT)
    refused(await store.charge_credits(poor, 1, force=True), "overflow", "forcing 1 below the largest debt")
    refused(
        await store.adjust_credits(poor, 1, direction="debit", force=True),
        "overflow",
        "debit below the largest debt",
    )
    await books(store, poor, "after refused charges", balance=-MAX_AMOUNT)
    expect(await store.add_credits(poor, MAX_AMOUNT), "repaying the largest debt")


async def check_time_never_decreases_for_an_account(harness: Harness) -> None:
    """A clock that steps back (a failover) neither dates rows backwards nor revives what has expired."""
    store = harness.store
    payer = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    await harness.advance(200)
    await fund(store, 10, user_id=payer)
    if not isinstance(harness, SkewableHarness):
        raise NotSupportedError("the harness has no step_back(), so a clock that jumps back cannot be tried")
    await harness.step_back(150)
    try:
        await books(store, payer, "after the clock stepped back", balance=10)
        expect(await store.charge_credits(payer, 1), "charge after the clock stepped back")
        newest, before, *_ = await rows(store, payer)
        ensure(newest.created_at >= before.created_at, "rows of an account are dated in their order")
    finally:
        await harness.advance(150)
