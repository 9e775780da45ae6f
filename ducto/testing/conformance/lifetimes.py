"""Checks of time: how long a reservation lives, its renewal, its expiry, and what the reaper does."""

from __future__ import annotations

from datetime import timedelta

from ducto.errors import ReservationNotFoundError
from ducto.testing.conformance.helpers import (
    books,
    ensure,
    equal,
    expect,
    fund,
    hold,
    key,
    known,
    now,
    raises,
    refused,
    rows,
)
from ducto.testing.harness import Harness

_DAY = 86_400


async def check_ttl_and_grace_are_bounded(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for ttl in (0, -5, _DAY + 1, 60 * 365 * _DAY):
        refused(
            await store.reserve_credits(payer, 1, "chat", min_balance=0, ttl_seconds=ttl),
            "invalid_argument",
            f"ttl_seconds={ttl}",
        )
    for grace in (-1, 3601):
        refused(
            await store.reserve_credits(payer, 1, "chat", min_balance=0, grace_seconds=grace),
            "invalid_argument",
            f"grace_seconds={grace}",
        )
    await books(store, payer, "after refused reservations", balance=100)
    for ttl, grace in ((1, 0), (_DAY, 3600)):
        expect(
            await store.reserve_credits(payer, 1, "chat", min_balance=0, ttl_seconds=ttl, grace_seconds=grace),
            f"ttl_seconds={ttl}, grace_seconds={grace}",
        )


async def check_expired_hold_frees_itself(harness: Harness) -> None:
    """Within the grace the hold counts, after it no longer, whether or not the reaper has run."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 90, ttl_seconds=100)
    await harness.advance(130)
    await books(store, payer, "within the grace", balance=100, available=10)
    equal((await store.get_reservation(payer, reservation_id)).state, "active", "state within the grace")
    await harness.advance(40)
    await books(store, payer, "after the grace, not reaped", balance=100)
    equal((await store.get_reservation(payer, reservation_id)).state, "expired", "state after the grace")
    expect(await store.charge_credits(payer, 100), "spending what an expired hold had held")


async def check_reaper_ends_expired_holds_and_moves_no_money(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    dead = await hold(store, payer, 30, ttl_seconds=10)
    alive = await hold(store, payer, 20, ttl_seconds=10_000)
    await harness.advance(100)
    first = await store.reap_expired_reservations(limit=1000)
    reaped = {found.reservation_id: found for found in first.reservations}
    ensure(dead in reaped, "the reaper has to end a reservation that is past expiry and grace")
    ensure(alive not in reaped, "the reaper must not end a reservation that has not expired")
    equal(reaped[dead].state, "expired", "state of a reaped reservation")
    ensure(first.reaped >= 1 and first.amount >= 30, f"the reaper counts what it ended, found {first!r}")
    second = await store.reap_expired_reservations(limit=1000)
    ensure(dead not in {found.reservation_id for found in second.reservations}, "one end per reservation")
    await books(store, payer, "after reaping", balance=100, available=80)
    equal(len(await rows(store, payer)), 1, "ledger rows: the reaper writes none")


async def check_reaper_keeps_to_its_limit(harness: Harness) -> None:
    """Never more than `limit` in one call, also where they are all of one user."""
    store = harness.store
    payer = await fund(store, 100)
    while (await store.reap_expired_reservations(limit=1000)).reaped:
        pass
    for _ in range(3):
        await hold(store, payer, 1, ttl_seconds=1)
    await harness.advance(100)
    equal((await store.reap_expired_reservations(limit=2)).reaped, 2, "reservations ended with limit=2")


async def check_renew_extends_to_the_maximum(harness: Harness) -> None:
    """`expires_at = max(expires_at, now + ttl)`: never earlier, never added up."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 10, ttl_seconds=600)
    before = (await store.get_reservation(payer, reservation_id)).expires_at
    shorter = expect(await store.renew_reservation(payer, reservation_id, ttl_seconds=10), "renew by less")
    equal(shorter.expires_at, before, "expires_at after renewing by less than is left")
    await harness.advance(300)
    for turn in ("first", "second"):
        limit = await now(harness) + timedelta(seconds=600)
        renewed = expect(await store.renew_reservation(payer, reservation_id, ttl_seconds=600), f"{turn} renewal")
        drift = known(renewed.expires_at, "expires_at of a renewal") - limit
        ensure(
            timedelta() <= drift < timedelta(seconds=20),
            f"{turn} renewal: expected expires_at 600 s from now, found {drift} more",
        )
    await harness.advance(620)
    await books(store, payer, "within the grace of a renewed hold", balance=100, available=90)


async def check_renew_needs_a_live_reservation(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    expired = await hold(store, payer, 1, ttl_seconds=10)
    await harness.advance(30)
    refused(await store.renew_reservation(payer, expired), "reservation_expired", "renewing within the grace")
    await harness.advance(100)
    refused(await store.renew_reservation(payer, expired), "reservation_expired", "renewing after the grace")
    released = await hold(store, payer, 1)
    expect(await store.release_reservation(payer, released), "release")
    refused(await store.renew_reservation(payer, released), "reservation_released", "renewing a released one")
    settled = await hold(store, payer, 1)
    receipt = expect(await store.deduct_credits(payer, settled, 1), "deduct")
    answer = refused(await store.renew_reservation(payer, settled), "already_settled", "renewing a settled one")
    equal(
        known(answer.details, "details").transaction_id,
        receipt.transaction_id,
        "transaction of already_settled",
    )
    refused(
        await store.renew_reservation(payer, key("unknown")),
        "reservation_not_found",
        "renewing an unknown one",
    )
    live = await hold(store, payer, 1)
    for ttl in (0, -1, _DAY + 1):
        refused(
            await store.renew_reservation(payer, live, ttl_seconds=ttl),
            "invalid_argument",
            f"renewing by {ttl} s",
        )


async def check_renew_ends_after_a_day(harness: Harness) -> None:
    """However often it is renewed, no reservation lives longer than 24 hours."""
    store = harness.store
    payer = await fund(store, 100)
    reservation_id = await hold(store, payer, 10, ttl_seconds=_DAY)
    created_at = (await store.get_reservation(payer, reservation_id)).created_at
    expect(await store.renew_reservation(payer, reservation_id, ttl_seconds=60), "harmless renewal")
    await harness.advance(_DAY - 60)
    refused(
        await store.renew_reservation(payer, reservation_id, ttl_seconds=600),
        "renew_limit",
        "renewing past 24 hours",
    )
    latest = (await store.get_reservation(payer, reservation_id)).expires_at
    equal(latest, created_at + timedelta(days=1), "expires_at after a refused renewal")


async def check_prune_forgets_only_old_ends(harness: Harness) -> None:
    """Reservations and their keys are kept for 30 days after their end at least."""
    store = harness.store
    payer, idempotency_key = await fund(store, 100), key()
    result = expect(
        await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=idempotency_key),
        "reserve",
    )
    reservation_id = known(result.reservation_id, "reservation_id")
    expect(await store.deduct_credits(payer, reservation_id, 10), "deduct")
    await harness.advance(29 * _DAY)
    await store.prune_reservations(limit=1000)
    equal(
        (await store.get_reservation(payer, reservation_id)).state,
        "settled",
        "reservation 29 days after its end",
    )
    replay = await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=idempotency_key)
    ensure(replay.replayed, "a reservation's key is known for 30 days after its end")
    await harness.advance(2 * _DAY)
    while await store.prune_reservations(limit=1000):
        pass
    await raises(
        ReservationNotFoundError,
        store.get_reservation(payer, reservation_id),
        "reservation pruned after 31 days",
    )
    await books(store, payer, "after pruning", balance=90)
