"""Checks of transfers between users."""

from __future__ import annotations

from ducto.models import SpendCap
from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    books,
    equal,
    expect,
    fields,
    fund,
    hold,
    in_debt,
    refused,
    rows,
    soon,
    user,
)
from ducto.testing.harness import Harness


async def check_transfer_writes_two_rows_of_sum_zero(harness: Harness) -> None:
    store, receiver = harness.store, user()
    sender = await fund(store, 100)
    result = expect(await store.transfer_credits(sender, receiver, 40), "transfer")
    fields(
        result,
        {"from_user_id": sender, "to_user_id": receiver, "amount": 40, "from_balance": 60, "to_balance": 40},
        "transfer of 40",
    )
    fields(
        (await rows(store, sender))[0],
        {
            "type": "transfer_out",
            "amount": -40,
            "counterparty": receiver,
            "transaction_id": result.transaction_id,
        },
        "the sender's row",
    )
    fields(
        (await rows(store, receiver))[0],
        {
            "type": "transfer_in",
            "amount": 40,
            "counterparty": sender,
            "transaction_id": result.transaction_id,
        },
        "the receiver's row",
    )
    await books(store, sender, "sender", balance=60)
    await books(store, receiver, "receiver", balance=40)
    equal((await store.get_balance(receiver)).lifetime_purchased, 0, "a transfer is no purchase")


async def check_transfer_keeps_the_floor_and_the_holds(harness: Harness) -> None:
    store, receiver = harness.store, user()
    sender = await fund(store, 100)
    await hold(store, sender, 30)
    refused(await store.transfer_credits(sender, receiver, 71), "insufficient_credits", "transfer 71 of free 70")
    refused(
        await store.transfer_credits(sender, receiver, 61, min_balance=10),
        "insufficient_credits",
        "transfer 61 of free 70 with floor 10",
    )
    equal(await rows(store, receiver), [], "the receiver's rows after refusals")
    expect(await store.transfer_credits(sender, receiver, 60, min_balance=10), "transfer exactly to the floor")
    await books(store, sender, "sender", balance=40, available=10)


async def check_transfer_of_nothing_is_refused(harness: Harness) -> None:
    store = harness.store
    sender = await fund(store, 100)
    for amount in (0, -5):
        refused(await store.transfer_credits(sender, user(), amount), "invalid_amount", f"transfer of {amount}")
    await books(store, sender, "sender", balance=100)


async def check_transfer_to_oneself_changes_nothing(harness: Harness) -> None:
    store = harness.store
    sender = await fund(store, 100)
    await store.transfer_credits(sender, sender, 40)
    await books(store, sender, "after a transfer to oneself, booked or refused", balance=100)


async def check_transferred_credits_keep_their_expiry(harness: Harness) -> None:
    store, receiver = harness.store, user()
    sender = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    await fund(store, 50, user_id=sender)
    expect(await store.transfer_credits(sender, receiver, 70), "transfer: 50 that expire and 20 that do not")
    await books(store, receiver, "receiver before the expiry", balance=70)
    await harness.advance(200)
    await books(store, receiver, "receiver after the expiry", balance=20)
    await books(store, sender, "sender after the expiry", balance=30)


async def check_transfer_repays_the_receivers_debt(harness: Harness) -> None:
    store = harness.store
    debtor = await in_debt(store, 30)
    sender = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    result = expect(await store.transfer_credits(sender, debtor, 50), "transfer to a debtor")
    equal(result.to_balance, 20, "to_balance after repaying")
    await harness.advance(200)
    await books(store, debtor, "what was repaid does not expire", balance=0)


async def check_transfer_cannot_overflow_the_receiver(harness: Harness) -> None:
    store = harness.store
    rich = await fund(store, MAX_AMOUNT)
    sender = await fund(store, 10)
    refused(await store.transfer_credits(sender, rich, 1), "overflow", "transfer to the largest balance")
    await books(store, sender, "sender", balance=10)
    await books(store, rich, "receiver", balance=MAX_AMOUNT)


async def check_caps_do_not_concern_transfers(harness: Harness) -> None:
    store, receiver = harness.store, user()
    sender = await fund(store, 100)
    await store.set_spend_cap(SpendCap(user_id=sender, cap_type="daily", limit=0))
    expect(await store.transfer_credits(sender, receiver, 40), "transfer under a spend cap of 0")
    equal((await store.check_spend_cap(sender)).spent, 0, "spent of the cap: a transfer is no spending")
