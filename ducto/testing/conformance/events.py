"""Checks of the recorded events: in order, with ids that stay, once per thing that happened."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    event_cursor,
    events_since,
    expect,
    fund,
    hold,
    key,
    soon,
    user,
)
from ducto.testing.harness import Harness


async def check_events_tell_what_happened_in_order(harness: Harness) -> None:
    store = harness.store
    cursor = await event_cursor(store)
    payer = await fund(store, 100)
    settled = await hold(store, payer, 30)
    expect(await store.deduct_credits(payer, settled, 20), "deduct")
    released = await hold(store, payer, 10)
    expect(await store.release_reservation(payer, released), "release")
    transaction_id = await charge(store, payer, 5)
    expect(await store.refund_credits(transaction_id), "refund")
    found = await events_since(store, cursor, payer)
    equal(
        [event.name for event in found],
        [
            "credits.added",
            "credits.reserved",
            "credits.deducted",
            "credits.reserved",
            "credits.released",
            "credits.deducted",
            "credits.refunded",
        ],
        "events of seven calls",
    )
    equal(found[2].reservation_id, settled, "reservation of a deduct's event")
    equal(found[5].transaction_id, transaction_id, "transaction of a charge's event")
    equal(
        [event.occurred_at for event in found],
        sorted(event.occurred_at for event in found),
        "times of the events",
    )


async def check_events_are_named_after_the_verb(harness: Harness) -> None:
    """Not after the type of the row: credits that were added as an adjustment were added."""
    store, payer = harness.store, user()
    cursor = await event_cursor(store)
    expect(await store.add_credits(payer, 100, "adjustment"), "add")
    expect(await store.adjust_credits(payer, 10, direction="debit"), "adjust")
    found = [event.name for event in await events_since(store, cursor, payer)]
    equal(found, ["credits.added", "credits.adjusted"], "events of an add and an adjust")


async def check_event_ids_stay_the_same(harness: Harness) -> None:
    store = harness.store
    cursor = await event_cursor(store)
    payer = await fund(store, 100)
    await charge(store, payer, 5)
    first = await events_since(store, cursor, payer)
    equal(await events_since(store, cursor, payer), first, "the same events, read again")
    equal(len({event.id for event in first}), len(first), "number of different ids")
    page = await store.list_events(cursor, limit=1)
    equal(len(page.events), 1, "events on a page of 1")
    rest = await events_since(store, page.next_cursor, payer)
    equal([*page.events, *rest], first, "events of a page of 1 and the pages after it")


async def check_replays_record_no_event(harness: Harness) -> None:
    store, payer = harness.store, user()
    add_key, charge_key, reserve_key = key(), key(), key()
    cursor = await event_cursor(store)
    reservation_id = ""
    for attempt_id in ("mine", "mine", "another's"):
        expect(await store.add_credits(payer, 100, "purchase", idempotency_key=add_key), "add")
        expect(await store.charge_credits(payer, 10, idempotency_key=charge_key), "charge")
        result = await store.reserve_credits(
            payer, 10, "chat", min_balance=0, idempotency_key=reserve_key, attempt_id=attempt_id
        )
        reservation_id = expect(result, "reserve").reservation_id or ""
        expect(await store.deduct_credits(payer, reservation_id, 10), "deduct")
        expect(await store.release_reservation(payer, reservation_id), "release after deduct")
    equal(
        [event.name for event in await events_since(store, cursor, payer)],
        ["credits.added", "credits.deducted", "credits.reserved", "credits.deducted"],
        "events of four calls that were each sent three times",
    )
    await books(store, payer, "after replays", balance=80)


async def check_denials_record_no_event_of_success(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    cursor = await event_cursor(store)
    await store.charge_credits(payer, 11)
    await store.reserve_credits(payer, 11, "chat")
    equal(await events_since(store, cursor, payer), [], "events of two refused calls")


async def check_expired_reservation_is_recorded(harness: Harness) -> None:
    """A caller that died leaves a trace: its hold ends with an event, and without a charge."""
    store = harness.store
    payer = await fund(store, 100)
    cursor = await event_cursor(store)
    reservation_id = await hold(store, payer, 30, ttl_seconds=10)
    await harness.advance(100)
    await store.reap_expired_reservations()
    found = await events_since(store, cursor, payer)
    equal(len(found), 2, f"events of a reservation that expired ({[event.name for event in found]})")
    equal(found[-1].reservation_id, reservation_id, "reservation of the last event")
    ensure("expired" in found[-1].name, f"the last event tells of an expiry, found {found[-1].name!r}")


async def check_booked_expiry_is_recorded(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    cursor = await event_cursor(store)
    await harness.advance(200)
    await store.sweep_expired_credits()
    await store.sweep_expired_credits()
    found = await events_since(store, cursor, payer)
    equal([event.name for event in found], ["credits.expired"], "events of an expiry and two sweeps")
    equal(abs(found[0].amount), 50, "credits of the expiry's event")
