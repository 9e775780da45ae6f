"""Checks of what rows and reservations tell of grants: which gave, held or got how much, and when each expires."""

from __future__ import annotations

from datetime import datetime

from ducto.models import GrantPart, Transaction
from ducto.testing.conformance.helpers import charge, equal, expect, fund, hold, last_row, rows, soon
from ducto.testing.harness import Harness


async def _two_grants(harness: Harness, *, base: int) -> tuple[str, GrantPart, GrantPart]:
    """A new user with two grants of 50 and a base; the grants as the rows that brought them in tell of them."""
    store = harness.store
    payer = await fund(store, base)
    made: list[GrantPart] = []
    for seconds in (200, 400):
        expires_at = await soon(harness, seconds)
        await fund(store, 50, user_id=payer, type="grant", expires_at=expires_at)
        row = await last_row(store, payer)
        equal(_moves(row), [(50, expires_at)], "grant_deltas of the row that brought a grant in")
        made += row.grant_deltas
    equal(made[0].grant == made[1].grant, False, "whether two grants of an account have the same number")
    return payer, made[0], made[1]


def _moves(row: Transaction) -> list[tuple[int, datetime]]:
    return [(part.amount, part.expires_at) for part in row.grant_deltas]


def _part(grant: GrantPart, amount: int) -> GrantPart:
    return grant.model_copy(update={"amount": amount})


async def check_charge_tells_which_grants_it_burned(harness: Harness) -> None:
    """In the order in which they were burned; what no grant gave came from the base."""
    store = harness.store
    payer, first, second = await _two_grants(harness, base=100)
    await charge(store, payer, 60)
    row = await last_row(store, payer)
    equal(row.grant_deltas, (_part(first, -50), _part(second, -10)), "grants of a charge of 60")
    await charge(store, payer, 70)
    row = await last_row(store, payer)
    equal((row.amount, row.grant_deltas), (-70, (_part(second, -40),)), "amount and grants of a charge of 70")
    await charge(store, payer, 5)
    equal((await last_row(store, payer)).grant_deltas, (), "grants of a charge that the base paid")


async def check_reservation_tells_which_grants_it_holds(harness: Harness) -> None:
    """And the row that settles it, which of them it burned: the rest of the hold was given back."""
    store = harness.store
    payer, first, second = await _two_grants(harness, base=100)
    reservation_id = await hold(store, payer, 120)
    held = (_part(first, 50), _part(second, 50))
    equal((await store.get_reservation(payer, reservation_id)).grant_holds, held, "grants that a hold of 120 holds")
    expect(await store.deduct_credits(payer, reservation_id, 60), "deduct 60 of 120")
    equal(
        (await last_row(store, payer)).grant_deltas,
        (_part(first, -50), _part(second, -10)),
        "grants burned by a deduct of 60",
    )
    after = await store.get_reservation(payer, reservation_id)
    equal(after.grant_holds, held, "what a settled reservation tells of the grants that it held")


async def check_refund_tells_which_grants_it_filled(harness: Harness) -> None:
    store = harness.store
    payer, _, second = await _two_grants(harness, base=100)
    transaction_id = await charge(store, payer, 120)
    expect(await store.refund_credits(transaction_id, 40), "refund 40 of 120, of which the base paid 20")
    row = await last_row(store, payer)
    equal((row.amount, row.grant_deltas), (40, (_part(second, 20),)), "amount and grants of the refund")


async def check_expiry_tells_its_grant(harness: Harness) -> None:
    store = harness.store
    payer, first, _ = await _two_grants(harness, base=100)
    await charge(store, payer, 20)
    await harness.advance(300)
    await store.sweep_expired_credits()
    row = await last_row(store, payer)
    equal((row.type, row.grant_deltas), ("expiry", (_part(first, -30),)), "type and grants of the expiry")


async def check_every_listing_tells_the_same_of_grants(harness: Harness) -> None:
    store = harness.store
    start = await soon(harness, 0)
    payer, *_ = await _two_grants(harness, base=10)
    transaction_id = await charge(store, payer, 105)
    row = await store.get_transaction(transaction_id)
    equal(len(row.grant_deltas), 2, "grants of a charge of 105, by get_transaction")
    equal((await rows(store, payer))[0], row, "the row by list_transactions")
    found: list[Transaction] = []
    page = await store.list_ledger(start=start)
    while page.transactions:
        found += [each for each in page.transactions if each.transaction_id == transaction_id]
        page = await store.list_ledger(page.next_cursor, start=start)
    equal(found, [row], "the row by list_ledger")
