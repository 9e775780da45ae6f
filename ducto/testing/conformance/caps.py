"""Checks of spend caps: they count what is spent and what is held, in calendar windows."""

from __future__ import annotations

from typing import Any

from ducto.errors import ArgumentError
from ducto.models import CapAction, CapType, SpendCap
from ducto.stores.base import CreditStore
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    just_before,
    known,
    next_day,
    next_hour,
    next_month,
    raises,
    refused,
    user,
)
from ducto.testing.conformance.kit_config import FREE, on_plan
from ducto.testing.harness import Harness


async def _cap(
    store: CreditStore,
    payer: str,
    limit: int,
    cap_type: CapType = "monthly",
    *,
    action: CapAction = "deny",
    model: str | None = None,
) -> SpendCap:
    cap = SpendCap(user_id=payer, cap_type=cap_type, limit=limit, action=action, model=model)
    await store.set_spend_cap(cap)
    return cap


async def check_cap_counts_spent_and_held(harness: Harness) -> None:
    """`spent + held + amount <= limit`; exactly the limit passes."""
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 100)
    await charge(store, payer, 40)
    await hold(store, payer, 40)
    result = refused(await store.reserve_credits(payer, 21, "chat"), "cap_reached", "reserve 21 beside 40 + 40 of 100")
    details = known(result.details, "details of cap_reached")
    fields(
        details,
        {"limit": 100, "spent": 40, "held": 40, "cap_type": "monthly", "model": None},
        "details of cap_reached",
    )
    equal(details.resets_at, (await store.check_allowance(payer)).period_end, "resets_at of a monthly cap")
    refused(await store.charge_credits(payer, 21), "cap_reached", "charge 21 beside 40 + 40 of 100")
    expect(await store.reserve_credits(payer, 20, "chat"), "reserve exactly to the limit")
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge 1 at the limit")
    await books(store, payer, "after refusals", balance=960, available=900)


async def check_cap_of_zero_refuses_every_amount(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    await _cap(store, payer, 0, "daily")
    refused(await store.reserve_credits(payer, 1, "chat"), "cap_reached", "reserve 1 under a cap of 0")
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge 1 under a cap of 0")
    expect(await store.reserve_credits(payer, 0, "chat"), "reserve 0 under a cap of 0")
    expect(await store.charge_credits(payer, 0), "charge 0 under a cap of 0")


async def check_freed_holds_reopen_a_cap(harness: Harness) -> None:
    """Released, expired or unused parts of holds are not spent."""
    store = harness.store
    await just_before(harness, next_month)
    await harness.advance(60)
    payer = await fund(store, 1000)
    await _cap(store, payer, 100)
    released, used = await hold(store, payer, 50), await hold(store, payer, 50)
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge beside 100 held of 100")
    expect(await store.release_reservation(payer, released), "release")
    expect(await store.deduct_credits(payer, used, 20), "deduct 20 of 50")
    await hold(store, payer, 80, ttl_seconds=10)
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge beside 20 spent and 80 held")
    await harness.advance(100)
    expect(await store.charge_credits(payer, 80), "charge after the hold expired")


async def check_hour_day_and_month_windows_roll_over(harness: Harness) -> None:
    store = harness.store
    windows: tuple[tuple[CapType, Any], ...] = (
        ("hourly", next_hour),
        ("daily", next_day),
        ("monthly", next_month),
    )
    for cap_type, boundary in windows:
        end = await just_before(harness, boundary)
        payer = await fund(store, 1000)
        await _cap(store, payer, 100, cap_type)
        await charge(store, payer, 100)
        result = refused(await store.charge_credits(payer, 1), "cap_reached", f"charge above the {cap_type} cap")
        equal(known(result.details, "details").resets_at, end, f"resets_at of the {cap_type} cap")
        await harness.advance(60)
        found = await store.check_spend_cap(payer)
        fields(found, {"allowed": True, "spent": 0, "held": 0}, f"{cap_type} cap in its next window")
        expect(await store.charge_credits(payer, 100), f"charge in the next {cap_type} window")


async def check_spend_is_booked_where_it_was_admitted(harness: Harness) -> None:
    """The day changes between reserve and deduct: `spent + held <= limit` stays exact for both days."""
    store = harness.store
    await just_before(harness, next_day)
    payer = await fund(store, 1000)
    await _cap(store, payer, 100, "daily")
    reservation_id = await hold(store, payer, 80)
    await harness.advance(60)
    fields(
        await store.check_spend_cap(payer),
        {"spent": 0, "held": 0},
        "cap of the new day while yesterday's runs",
    )
    await charge(store, payer, 100)
    expect(await store.deduct_credits(payer, reservation_id, 80), "deduct of yesterday's reservation")
    fields(await store.check_spend_cap(payer), {"spent": 100, "held": 0}, "cap of the new day afterwards")


async def check_cap_set_later_counts_its_window(harness: Harness) -> None:
    """A new cap starts with what its window has spent and what is held; so does one that was removed."""
    store = harness.store
    payer = await fund(store, 1000)
    await charge(store, payer, 60)
    await hold(store, payer, 30)
    await _cap(store, payer, 100)
    fields(await store.check_spend_cap(payer), {"spent": 60, "held": 30}, "a cap set after the spending")
    refused(await store.charge_credits(payer, 11), "cap_reached", "charge 11 beside 60 + 30 of 100")
    ensure(await store.remove_spend_cap(payer, "monthly"), "remove_spend_cap tells that there was one")
    await charge(store, payer, 50)
    await _cap(store, payer, 150)
    fields(await store.check_spend_cap(payer), {"spent": 110, "held": 30}, "a cap set again")


async def check_changed_limit_keeps_the_counter(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 100)
    await charge(store, payer, 60)
    await _cap(store, payer, 50)
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge under a limit that was lowered")
    await _cap(store, payer, 70)
    expect(await store.charge_credits(payer, 10), "charge exactly to a limit that was raised")
    equal(await store.list_spend_caps(payer), [SpendCap(user_id=payer, cap_type="monthly", limit=70)], "caps")


async def check_refund_does_not_reopen_a_cap(harness: Harness) -> None:
    """Else a loop of charge and refund would evade it; also for a cap that is set afterwards."""
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 100)
    transaction_id = await charge(store, payer, 100)
    expect(await store.refund_credits(transaction_id), "refund")
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge after a refund")
    await store.remove_spend_cap(payer, "monthly")
    await _cap(store, payer, 100)
    equal((await store.check_spend_cap(payer)).spent, 100, "spent of a cap that was set after the refund")


async def check_warning_cap_marks_and_lets_pass(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    cap = await _cap(store, payer, 100, action="warn")
    below = expect(await store.reserve_credits(payer, 100, "chat"), "reserve exactly to a warning limit")
    equal(below.cap_warning, None, "cap_warning at the limit")
    above = expect(await store.reserve_credits(payer, 1, "chat"), "reserve above a warning limit")
    warning = known(above.cap_warning, "cap_warning above the limit")
    fields(warning, {"action": "warn", "cap": cap, "spent": 0, "held": 100}, "cap_warning of a reserve")
    charged = expect(await store.charge_credits(payer, 1), "charge above a warning limit")
    equal(known(charged.cap_warning, "cap_warning of a charge").cap, cap, "cap of the warning")


async def check_notifying_cap_is_silent_for_the_caller(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    cap = await _cap(store, payer, 100, action="notify")
    at_limit = expect(await store.charge_credits(payer, 100), "charge exactly to a notifying limit")
    equal((at_limit.cap_warning, at_limit.cap_notices), (None, ()), "marks at the limit")
    above = expect(await store.charge_credits(payer, 1), "charge above a notifying limit")
    equal(above.cap_warning, None, "cap_warning of a notifying cap")
    equal([notice.cap for notice in above.cap_notices], [cap], "cap_notices above the limit")


async def check_denying_cap_beats_a_warning_one(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 10, "hourly", action="warn")
    await _cap(store, payer, 50, "monthly")
    result = refused(await store.charge_credits(payer, 51), "cap_reached", "charge above both")
    equal(known(result.details, "details").cap_type, "monthly", "the cap that refused")
    found = await store.check_spend_cap(payer, amount=51)
    fields(found, {"allowed": False, "action": "deny"}, "check_spend_cap above both")
    found = await store.check_spend_cap(payer, amount=11)
    fields(found, {"allowed": True, "action": "warn"}, "check_spend_cap above the warning one alone")


async def check_model_cap_comes_first_then_the_shortest_window(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 10, "hourly")
    await _cap(store, payer, 10, "monthly", model="m-1")
    await _cap(store, payer, 10, "daily", model="m-1")
    await _cap(store, payer, 10, "daily")
    expected = [("m-1", "daily"), ("m-1", "monthly"), (None, "hourly"), (None, "daily")]
    equal(
        [(cap.model, cap.cap_type) for cap in await store.list_spend_caps(payer)],
        expected,
        "order of the caps",
    )
    for model, cap_type in expected:
        result = refused(await store.charge_credits(payer, 11, model="m-1"), "cap_reached", "charge above all")
        details = known(result.details, "details")
        equal((details.model, details.cap_type), (model, cap_type), "the cap that is reported")
        found = await store.check_spend_cap(payer, "m-1", 11)
        reported = known(found.cap, "cap of check_spend_cap")
        equal((reported.model, reported.cap_type), (model, cap_type), "the cap that check_spend_cap reports")
        kind: Any = cap_type
        ensure(
            await store.remove_spend_cap(payer, kind, model=model),
            "remove_spend_cap tells that there was one",
        )
    expect(await store.charge_credits(payer, 11, model="m-1"), "charge without any cap")


async def check_model_cap_counts_its_model_alone(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 100, model="m-1")
    await charge(store, payer, 500, model="m-2")
    await charge(store, payer, 50)
    await charge(store, payer, 60, model="m-1")
    fields(await store.check_spend_cap(payer, "m-1"), {"spent": 60, "allowed": True}, "cap of the model")
    refused(await store.charge_credits(payer, 41, model="m-1"), "cap_reached", "charge above the model's cap")
    reservation_id = await hold(store, payer, 40, model="m-1")
    expect(await store.charge_credits(payer, 41, model="m-2"), "charge of another model")
    expect(await store.deduct_credits(payer, reservation_id, 40), "deduct")
    fields(
        await store.check_spend_cap(payer, "m-1"),
        {"spent": 100, "allowed": False},
        "cap of the model, filled",
    )
    ensure((await store.check_spend_cap(payer)).allowed, "the model's cap does not concern calls without a model")


async def check_caps_count_the_allowance(harness: Harness) -> None:
    """Caps count gross: allowance and money."""
    store = harness.store
    payer = await on_plan(store, FREE, credits=100)
    await _cap(store, payer, 110)
    await charge(store, payer, 60)
    await hold(store, payer, 50)
    fields(await store.check_spend_cap(payer), {"spent": 60, "held": 50}, "cap over allowance and money")
    refused(await store.charge_credits(payer, 1), "cap_reached", "charge above 60 + 50 of 110")


async def check_forced_charges_and_overage_count(harness: Harness) -> None:
    """They pass the cap, and the cap knows of them."""
    store = harness.store
    payer = await fund(store, 1000)
    await _cap(store, payer, 100)
    expect(await store.charge_credits(payer, 70, force=True), "forced charge")
    reservation_id = await hold(store, payer, 30)
    expect(await store.deduct_credits(payer, reservation_id, 90), "deduct 90 of 30")
    fields(
        await store.check_spend_cap(payer),
        {"spent": 160, "held": 0, "allowed": False},
        "cap after an overage",
    )
    expect(await store.charge_credits(payer, 5, force=True), "forced charge above the cap")
    equal((await store.check_spend_cap(payer)).spent, 165, "spent after a forced charge")


async def check_check_spend_cap_asks_without_booking(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    ensure((await store.check_spend_cap(payer)).allowed, "no cap allows everything")
    equal((await store.check_spend_cap(payer)).cap, None, "the cap that decided where there is none")
    cap = await _cap(store, payer, 100)
    fields(
        await store.check_spend_cap(payer, amount=100),
        {"allowed": True, "cap": cap, "spent": 0, "held": 0},
        "exactly the limit",
    )
    fields(
        await store.check_spend_cap(payer, amount=101),
        {"allowed": False, "action": "deny"},
        "above the limit",
    )
    await charge(store, payer, 99)
    ensure((await store.check_spend_cap(payer)).allowed, "without an amount: one credit is left")
    await charge(store, payer, 1)
    ensure(not (await store.check_spend_cap(payer)).allowed, "without an amount: no credit is left")


async def check_remove_spend_cap_tells_whether_there_was_one(harness: Harness) -> None:
    store = harness.store
    payer = user()
    equal(await store.remove_spend_cap(payer, "daily"), False, "removing a cap that is not there")
    await _cap(store, payer, 10, "daily")
    equal(await store.remove_spend_cap(payer, "daily", model="m-1"), False, "removing another model's cap")
    equal(await store.remove_spend_cap(payer, "daily"), True, "removing a cap")
    equal(await store.list_spend_caps(payer), [], "caps after the removal")


async def check_bad_caps_are_refused(harness: Harness) -> None:
    store = harness.store
    for wrong in ({"user_id": ""}, {"user_id": " x"}, {"model": ""}, {"model": "a\x00b"}):
        cap = SpendCap(**{"user_id": user(), "cap_type": "daily", "limit": 1, **wrong})
        await raises(ArgumentError, store.set_spend_cap(cap), f"a cap with {wrong!r}")
    for field, value in (("limit", -1), ("limit", 1.5), ("cap_type", "weekly"), ("action", "scold")):
        good = SpendCap(user_id=user(), cap_type="daily", limit=1)
        await raises(
            ArgumentError,
            store.set_spend_cap(good.model_copy(update={field: value})),
            f"a cap with {field}={value!r}",
        )
