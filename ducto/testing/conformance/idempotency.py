"""Checks that every verb with a key happens once under it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from ducto.errors import IdempotencyMismatchError
from ducto.models import Outcome
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fund,
    key,
    known,
    raises,
    refused,
    soon,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import (
    FREE,
    LABEL,
    kit_config,
    on_plan,
    publish_kit_config,
    use_kit_config,
)
from ducto.testing.harness import Harness

Call = Callable[[int], Awaitable[Outcome]]


async def _once(call: Call, disturb: Callable[[], Awaitable[object]], verb: str, amount: int = 10) -> None:
    """The keyed `call` happens once; its replay is word for word the first answer; another amount is refused."""
    first = expect(await call(amount), f"first {verb}")
    equal(first.replayed, False, f"replayed of the first {verb}")
    await disturb()
    replay = await call(amount)
    equal(replay, first.model_copy(update={"replayed": True}), f"replay of {verb}")
    other = refused(await call(amount + 1), "idempotency_mismatch", f"{verb} of another amount under the same key")
    mismatch = known(known(other.details, f"details of the mismatch of {verb}").mismatch, "details.mismatch")
    equal(mismatch, ("amount",), f"fields that differ in {verb}")


async def check_add_happens_once_per_key(harness: Harness) -> None:
    """A payment provider delivers an event more than once."""
    store, payer, idempotency_key = harness.store, user(), key("evt")
    await _once(
        lambda amount: store.add_credits(payer, amount, "purchase", idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "add_credits",
    )
    await books(store, payer, "after a top-up delivered twice", balance=1010)


async def check_expiring_add_happens_once_per_key(harness: Harness) -> None:
    store, payer, idempotency_key = harness.store, user(), key("evt")
    expires_at: datetime = await soon(harness, 1000)
    await _once(
        lambda amount: store.add_credits(payer, amount, "grant", None, expires_at, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "add_credits with an expiry",
    )
    await harness.advance(2000)
    again = expect(
        await store.add_credits(payer, 10, "grant", None, expires_at, idempotency_key=idempotency_key),
        "replay after the granted credits have expired",
    )
    ensure(again.replayed, "a replay is no new call: its expiry may lie in the past by then")
    await books(store, payer, "after the grant expired", balance=1000)


async def check_charge_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 100)
    await _once(
        lambda amount: store.charge_credits(payer, amount, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "charge_credits",
    )
    await books(store, payer, "after a charge sent twice", balance=1090)


async def check_forced_charge_happens_once_per_key(harness: Harness) -> None:
    store, payer, idempotency_key = harness.store, user(), key()
    await _once(
        lambda amount: store.charge_credits(payer, amount, force=True, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "charge_credits(force=True)",
    )
    await books(store, payer, "after a forced charge sent twice", balance=990)


async def check_adjust_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 100)
    await _once(
        lambda amount: store.adjust_credits(payer, amount, direction="debit", idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "adjust_credits",
    )
    await books(store, payer, "after an adjustment sent twice", balance=1090)


async def check_transfer_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key, receiver = harness.store, key(), user()
    payer = await fund(store, 100)
    await _once(
        lambda amount: store.transfer_credits(payer, receiver, amount, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "transfer_credits",
    )
    refused(
        await store.transfer_credits(payer, user(), 10, idempotency_key=idempotency_key),
        "idempotency_mismatch",
        "transfer to somebody else under the same key",
    )
    await books(store, receiver, "receiver of a transfer sent twice", balance=10)


async def check_refund_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 80)
    await _once(
        lambda amount: store.refund_credits(transaction_id, amount, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "refund_credits",
    )
    await books(store, payer, "after a refund sent twice", balance=1030)


async def check_team_verbs_happen_once_per_key(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=100)
    charge_key, fund_key = key(), key()
    await _once(
        lambda amount: store.deduct_team(team_id, member, amount, idempotency_key=charge_key),
        lambda: store.add_team_credits(team_id, 1000),
        "deduct_team",
    )
    await _once(
        lambda amount: store.add_team_credits(team_id, amount, "purchase", idempotency_key=fund_key),
        lambda: store.add_team_credits(team_id, 1000),
        "add_team_credits",
    )
    equal((await store.get_team_balance(team_id)).balance, 2100, "pool after charges and top-ups sent twice")


async def check_create_team_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    first = expect(await store.create_team("Ants", 50, idempotency_key=idempotency_key), "create_team")
    team_id = known(first.team_id, "team_id")
    expect(await store.add_team_credits(team_id, 5), "funding the team")
    again = await store.create_team("Ants", 50, idempotency_key=idempotency_key)
    equal(again, first.model_copy(update={"replayed": True}), "replay of create_team")
    refused(
        await store.create_team("Ants", 51, idempotency_key=idempotency_key),
        "idempotency_mismatch",
        "create_team with another balance under the same key",
    )


async def check_reserve_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 100)
    await _once(
        lambda amount: store.reserve_credits(payer, amount, "chat", min_balance=0, idempotency_key=idempotency_key),
        lambda: fund(store, 1000, user_id=payer),
        "reserve_credits",
    )
    await books(store, payer, "after a reserve sent twice", balance=1100, available=1090)


async def check_reserve_replay_tells_the_state(harness: Harness) -> None:
    """The original reply, also if the reservation has ended since: `state` says so."""
    store = harness.store
    payer = await fund(store, 1000)
    keys = {state: key(state) for state in ("settled", "released", "expired")}
    first = {
        state: expect(
            await store.reserve_credits(
                payer, 10, "chat", min_balance=0, idempotency_key=idempotency_key, ttl_seconds=10
            ),
            "reserve",
        )
        for state, idempotency_key in keys.items()
    }
    settled_id = known(first["settled"].reservation_id, "reservation_id")
    released_id = known(first["released"].reservation_id, "reservation_id")
    expect(await store.deduct_credits(payer, settled_id, 10), "deduct")
    expect(await store.release_reservation(payer, released_id), "release")
    await harness.advance(100)
    for state, idempotency_key in keys.items():
        replay = await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=idempotency_key)
        expected = first[state].model_copy(update={"replayed": True, "state": state})
        equal(replay, expected, f"replay of a reservation that is {state}")
    await books(store, payer, "replays hold nothing", balance=990)


async def check_allowance_booking_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await on_plan(store, FREE)
    for _ in range(2):
        await store.increment_usage_window(payer, FREE, 10, idempotency_key=idempotency_key)
    equal((await store.check_allowance(payer)).used, 10, "allowance used by a booking sent twice")
    await raises(
        IdempotencyMismatchError,
        store.increment_usage_window(payer, FREE, 11, idempotency_key=idempotency_key),
        "another amount under the same key",
    )


async def check_publish_happens_once_per_key(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    await use_kit_config(store)
    try:
        first = await store.set_active_pricing(kit_config(), LABEL, idempotency_key=idempotency_key)
        await publish_kit_config(store)
        again = await store.set_active_pricing(kit_config(), LABEL, idempotency_key=idempotency_key)
        equal(again, first, "id of a publish sent twice")
        active = known(await store.get_active_pricing(), "active pricing")
        ensure(active.id != first, "a replayed publish must not make its old version active again")
        await raises(
            IdempotencyMismatchError,
            store.set_active_pricing(kit_config(default_plan=FREE), LABEL, idempotency_key=idempotency_key),
            "another config under the same key",
        )
    finally:
        await publish_kit_config(store)
