"""Checks of credits that expire: which are spent first, what a hold protects, and what the sweep may take."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    last_row,
    rows,
    soon,
)
from ducto.testing.harness import Harness


async def _granted(harness: Harness, *grants: tuple[int, float], base: int = 0) -> str:
    """A new user with `base` credits and grants of (credits, seconds until they expire)."""
    payer = await fund(harness.store, base) if base else None
    for credits, seconds in grants:
        payer = await fund(harness.store, credits, user_id=payer, type="grant", expires_at=await soon(harness, seconds))
    if payer is None:
        raise ValueError("a user needs credits")
    return payer


async def check_grant_expires_at_its_time(harness: Harness) -> None:
    """Every answer shows it as booked, before any sweep has run."""
    store = harness.store
    payer = await _granted(harness, (50, 100), base=20)
    await books(store, payer, "before the expiry", balance=70)
    await harness.advance(110)
    await books(store, payer, "after the expiry, not swept", balance=20)
    result = await store.charge_credits(payer, 21)
    equal(result.error, "insufficient_credits", "spending expired credits")
    charged = expect(await store.charge_credits(payer, 20), "spending what has not expired")
    equal(charged.balance_after, 0, "balance_after of a charge after an expiry")


async def check_earliest_expiry_is_spent_first(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 400), (50, 200), base=100)
    await charge(store, payer, 60)
    await books(store, payer, "after charging 60 of 200", balance=140)
    await harness.advance(300)
    await books(store, payer, "the grant that expires first was spent first", balance=140)
    await harness.advance(300)
    await books(store, payer, "40 of the second grant expired, the base is whole", balance=100)


async def check_sweep_takes_only_what_is_left_of_a_grant(harness: Harness) -> None:
    """Paid credits stay, however much has been spent before the sweep."""
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    await charge(store, payer, 50)
    await harness.advance(200)
    await store.sweep_expired_credits()
    await books(store, payer, "after the sweep of a spent grant", balance=100)


async def check_sweep_books_an_expiry_row_once(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    await charge(store, payer, 20)
    await harness.advance(200)
    first = await store.sweep_expired_credits()
    ensure(
        first.accounts >= 1 and first.grants >= 1 and first.amount >= 30,
        f"the sweep counts what it booked (30 credits of 1 grant at least), found {first!r}",
    )
    fields(await last_row(store, payer), {"type": "expiry", "amount": -30, "balance_after": 100}, "expiry row")
    fields(
        await store.sweep_expired_credits(),
        {"accounts": 0, "grants": 0, "amount": 0},
        "a second sweep at once",
    )
    equal(len(await rows(store, payer)), 4, "ledger rows after two additions, a charge and two sweeps")


async def check_dry_run_writes_nothing(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100))
    await harness.advance(200)
    dry = await store.sweep_expired_credits(dry_run=True)
    equal(dry.dry_run, True, "dry_run of a dry sweep")
    ensure(dry.amount >= 50, f"a dry sweep tells what is due, found {dry!r}")
    equal(len(await rows(store, payer)), 1, "ledger rows after a dry sweep")
    wet = await store.sweep_expired_credits()
    equal(
        (wet.accounts, wet.grants, wet.amount),
        (dry.accounts, dry.grants, dry.amount),
        "a sweep after a dry one",
    )
    equal(len(await rows(store, payer)), 2, "ledger rows after a sweep")


async def check_next_write_books_what_is_due(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    await harness.advance(200)
    await charge(store, payer, 10)
    newest, due, *_ = await rows(store, payer)
    fields(due, {"type": "expiry", "amount": -50, "balance_after": 100}, "expiry booked by the next write")
    fields(newest, {"type": "charge", "amount": -10, "balance_after": 90}, "the write itself")
    await store.sweep_expired_credits()
    await books(store, payer, "a sweep afterwards finds nothing", balance=90)


async def check_hold_keeps_its_credits_from_the_sweep(harness: Harness) -> None:
    """A reservation allocates which grants it holds; the sweep leaves that part to it."""
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    reservation_id = await hold(store, payer, 40)
    await harness.advance(200)
    await books(store, payer, "10 of the grant expired, 40 are held", balance=140, available=100)
    await store.sweep_expired_credits()
    await books(store, payer, "after the sweep", balance=140, available=100)
    expect(await store.deduct_credits(payer, reservation_id, 40), "deduct the held part")
    await books(store, payer, "the grant paid, the base is whole", balance=100)


async def check_freed_part_of_an_expired_grant_expires(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    reservation_id = await hold(store, payer, 50)
    await harness.advance(200)
    expect(await store.deduct_credits(payer, reservation_id, 20), "deduct 20 of 50 held of a grant")
    await books(store, payer, "20 spent and 30 expired", balance=100)
    await store.sweep_expired_credits()
    await books(store, payer, "after a sweep", balance=100)


async def check_released_part_of_an_expired_grant_expires(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    reservation_id = await hold(store, payer, 50)
    await harness.advance(200)
    expect(await store.release_reservation(payer, reservation_id), "release")
    await books(store, payer, "after releasing an expired grant", balance=100)
    await store.sweep_expired_credits()
    await books(store, payer, "after a sweep", balance=100)
    equal(sum(row.amount for row in await rows(store, payer)), 100, "sum of the ledger")


async def check_expired_hold_of_an_expired_grant_frees_nothing(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100), base=100)
    await hold(store, payer, 50, ttl_seconds=150)
    await harness.advance(1000)
    await books(store, payer, "hold and grant both expired", balance=100)
    await store.reap_expired_reservations()
    await store.sweep_expired_credits()
    await books(store, payer, "after reaper and sweep", balance=100)


async def check_time_of_the_sweep_changes_no_answer(harness: Harness) -> None:
    """Two users with the same history, one swept early and late, the other never: the same books."""
    store = harness.store
    swept = await _granted(harness, (50, 100), (50, 300), base=10)
    unswept = await _granted(harness, (50, 100), (50, 300), base=10)
    held = {payer: await hold(store, payer, 70) for payer in (swept, unswept)}
    await harness.advance(150)
    await charge(store, swept, 5)
    await store.sweep_expired_credits()
    await charge(store, unswept, 5)
    for payer in (swept, unswept):
        await books(store, payer, "70 held, 5 spent", balance=105, available=35)
        expect(await store.deduct_credits(payer, held[payer], 60), "deduct 60 of 70")
        await books(store, payer, "50 of the first grant and 10 of the second spent", balance=45)
    await harness.advance(300)
    for payer in (swept, unswept):
        await books(store, payer, "after all grants expired", balance=10)


async def check_freed_expiring_credits_repay_debt(harness: Harness) -> None:
    """The base is never in debt while a grant is free: what a release frees pays first."""
    store = harness.store
    payer = await _granted(harness, (50, 100))
    reservation_id = await hold(store, payer, 50)
    expect(await store.charge_credits(payer, 30, force=True), "forced charge while all is held")
    await books(store, payer, "in debt under a hold", balance=20, available=-30)
    expect(await store.release_reservation(payer, reservation_id), "release")
    await books(store, payer, "after the release", balance=20)
    await harness.advance(200)
    await books(store, payer, "30 repaid, 20 expired", balance=0)


async def check_refund_returns_to_the_latest_consumed_first(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 200), (50, 400), base=50)
    transaction_id = await charge(store, payer, 120)
    expect(await store.refund_credits(transaction_id, 40), "refund 40: 20 to the base, 20 to the second grant")
    await books(store, payer, "after the refund", balance=70)
    await harness.advance(300)
    await books(store, payer, "nothing returned to the first grant", balance=70)
    await harness.advance(300)
    await books(store, payer, "what returned to the second grant expired with it", balance=50)


async def check_refund_to_an_expired_grant_goes_to_the_base(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 100))
    transaction_id = await charge(store, payer, 50)
    await harness.advance(200)
    expect(await store.refund_credits(transaction_id), "refund after the grant expired")
    await books(store, payer, "after the refund", balance=50)
    await harness.advance(10_000)
    await store.sweep_expired_credits()
    await books(store, payer, "the base does not expire", balance=50)


async def check_overage_takes_grants_before_the_base(harness: Harness) -> None:
    store = harness.store
    payer = await _granted(harness, (50, 1000), base=100)
    reservation_id = await hold(store, payer, 20)
    expect(await store.deduct_credits(payer, reservation_id, 60), "deduct 60 of 20 held")
    await harness.advance(2000)
    await books(store, payer, "the grant was spent, the base gave 10", balance=90)
