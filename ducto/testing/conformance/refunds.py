"""Checks of refunds: what may be refunded, how much of it, and to whom it returns."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    books,
    charge,
    equal,
    expect,
    fields,
    fund,
    hold,
    in_debt,
    key,
    known,
    last_row,
    refused,
    rows,
    team_of,
    user,
)
from ducto.testing.harness import Harness


async def check_refund_returns_a_whole_spend(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 40)
    result = expect(await store.refund_credits(transaction_id, reason="goodwill"), "refund")
    fields(
        result,
        {
            "refunded_transaction_id": transaction_id,
            "user_id": payer,
            "team_id": None,
            "amount": 40,
            "allowance_restored": 0,
            "balance_after": 100,
        },
        "refund of a whole spend",
    )
    fields(
        await last_row(store, payer),
        {
            "transaction_id": result.transaction_id,
            "type": "refund",
            "amount": 40,
            "refunded_transaction_id": transaction_id,
            "balance_after": 100,
        },
        "ledger row of a refund",
    )
    await books(store, payer, "after a refund", balance=100)


async def check_refund_of_a_settled_reservation(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    deducted = expect(await store.deduct_credits(payer, await hold(store, payer, 50), 30), "deduct")
    expect(await store.refund_credits(known(deducted.transaction_id, "transaction_id")), "refund of a deduct")
    await books(store, payer, "after a refund", balance=100)


async def check_partial_refunds_add_up_to_what_was_charged(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 100)
    expect(await store.refund_credits(transaction_id, 30, idempotency_key=key()), "refund 30 of 100")
    refused(
        await store.refund_credits(transaction_id, 71, idempotency_key=key()),
        "over_refund",
        "refund 71 of the rest 70",
    )
    await books(store, payer, "after over_refund", balance=30)
    rest = expect(await store.refund_credits(transaction_id), "refund of what is left")
    equal(rest.amount, 70, "amount of a refund of what is left")
    refused(
        await store.refund_credits(transaction_id, 1, idempotency_key=key()),
        {"over_refund", "already_refunded"},
        "refund 1 of nothing",
    )
    await books(store, payer, "after all refunds", balance=100)


async def check_full_refund_happens_once_without_a_key(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 40)
    first = expect(await store.refund_credits(transaction_id), "refund")
    refused(await store.refund_credits(transaction_id), "already_refunded", "the same refund again")
    refused(
        await store.refund_credits(transaction_id, idempotency_key=key()),
        "already_refunded",
        "again with a new key",
    )
    await books(store, payer, "refunded once", balance=100)
    equal((await last_row(store, payer)).transaction_id, first.transaction_id, "last row of the ledger")


async def check_refund_amount_is_positive(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 40)
    for amount in (0, -1, -40):
        refused(await store.refund_credits(transaction_id, amount), "invalid_amount", f"refund of {amount}")
    refused(await store.refund_credits(key("tx"), 0), "invalid_amount", "a bad amount comes before an unknown id")
    await books(store, payer, "after refused refunds", balance=60)


async def check_refund_of_an_unknown_transaction(harness: Harness) -> None:
    refused(await harness.store.refund_credits(key("tx")), "transaction_not_found", "refund of an unknown id")


async def check_only_spends_are_refundable(harness: Harness) -> None:
    store = harness.store
    payer = user()
    added = expect(await store.add_credits(payer, 100, "purchase"), "add")
    refused(
        await store.refund_credits(known(added.transaction_id, "transaction_id")),
        "not_refundable",
        "refund of a purchase",
    )
    transaction_id = await charge(store, payer, 40)
    refund = expect(await store.refund_credits(transaction_id, 10, idempotency_key=key()), "refund")
    refused(
        await store.refund_credits(known(refund.transaction_id, "transaction_id")),
        "not_refundable",
        "refund of a refund",
    )
    moved = expect(await store.transfer_credits(payer, user(), 5), "transfer")
    corrected = expect(await store.adjust_credits(payer, 5, direction="debit"), "correction")
    for transaction in (moved.transaction_id, corrected.transaction_id):
        refused(
            await store.refund_credits(known(transaction, "transaction_id")),
            "not_refundable",
            "refund of a transfer or a correction, which charged nothing",
        )
    await books(store, payer, "after refused refunds", balance=60)


async def check_refund_is_limited_to_what_was_charged(harness: Harness) -> None:
    """What stayed unbilled was never paid and does not return."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 50, overage="clamp")
    deducted = expect(await store.deduct_credits(payer, reservation_id, 500), "deduct 500 with `clamp`")
    transaction_id = known(deducted.transaction_id, "transaction_id")
    refused(
        await store.refund_credits(transaction_id, 101, idempotency_key=key()),
        "over_refund",
        "refund 101 of 100 charged",
    )
    result = expect(await store.refund_credits(transaction_id), "refund")
    equal(result.amount, 100, "refund of a clamped call")


async def check_refund_repays_debt(harness: Harness) -> None:
    store = harness.store
    debtor = await in_debt(store, 50)
    transaction_id = (await last_row(store, debtor)).transaction_id
    expect(await store.refund_credits(transaction_id, 20, idempotency_key=key()), "refund to a debtor")
    await books(store, debtor, "after a refund", balance=-30)


async def check_team_refund_returns_to_the_pool(harness: Harness) -> None:
    """The account that paid gets it back, not the member's wallet."""
    store = harness.store
    member = await fund(store, 7)
    team_id = await team_of(store, member, credits=100)
    charged = expect(await store.deduct_team(team_id, member, 40), "deduct_team")
    result = expect(await store.refund_credits(known(charged.transaction_id, "transaction_id")), "refund")
    fields(result, {"team_id": team_id, "amount": 40, "balance_after": 100}, "refund of a team's spend")
    equal((await store.get_team_balance(team_id)).balance, 100, "pool after the refund")
    await books(store, member, "the member's own credits", balance=7)
    equal(len(await rows(store, member)), 1, "the member's own ledger rows")


async def check_refund_of_a_forced_charge(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    result = expect(await store.charge_credits(payer, 40, force=True), "forced charge")
    expect(await store.refund_credits(known(result.transaction_id, "transaction_id")), "refund")
    await books(store, payer, "after the refund", balance=10)
