"""Checks of plans: assigning, features, the default plan, and plans that a publish dropped."""

from __future__ import annotations

from ducto.testing.conformance.helpers import (
    ensure,
    equal,
    expect,
    fields,
    fund,
    key,
    known,
    refused,
    user,
)
from ducto.testing.conformance.kit_config import (
    FREE,
    PLANLESS_FEATURE,
    PRO,
    SINGLE,
    SMALL,
    kit_config,
    on_plan,
    publish_kit_config,
    use_kit_config,
)
from ducto.testing.harness import Harness


async def check_user_plan_shows_its_definition(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, PRO)
    fields(
        await store.get_user_plan(payer),
        {
            "user_id": payer,
            "plan_id": PRO,
            "name": "Pro",
            "free_allowance": 300,
            "features": ("chat", PLANLESS_FEATURE),
            "rate_overrides": {"kit-model": "input_tokens + output_tokens"},
            "per_operation": {"report": 7},
            "max_concurrent": None,
        },
        "the user's plan",
    )
    single = await on_plan(store, SINGLE)
    equal((await store.get_user_plan(single)).max_concurrent, 1, "max_concurrent of a plan")


async def check_user_without_a_plan(harness: Harness) -> None:
    store = harness.store
    await use_kit_config(store)
    fields(
        await store.get_user_plan(user()),
        {"plan_id": None, "name": None, "free_allowance": 0, "features": (), "max_concurrent": None},
        "plan of a user without one",
    )


async def check_set_plan_replaces_and_removes(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    changed = expect(await store.set_user_plan(payer, PRO), "change of plan")
    fields(changed, {"user_id": payer, "plan_id": PRO, "previous_plan_id": FREE}, "change of plan")
    expect(await store.set_user_plan(payer, PRO), "the same plan again")
    removed = expect(await store.set_user_plan(payer, None), "no plan")
    fields(removed, {"plan_id": None, "previous_plan_id": PRO}, "removal of the plan")
    equal((await store.get_user_plan(payer)).plan_id, None, "plan after its removal")


async def check_unknown_plan_is_refused(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    refused(await store.set_user_plan(payer, key("plan")), "plan_not_found", "an unknown plan")
    equal((await store.get_user_plan(payer)).plan_id, FREE, "plan after a refusal")


async def check_list_plans_is_that_of_the_active_config(harness: Harness) -> None:
    store = harness.store
    await use_kit_config(store)
    plans = await store.list_plans()
    equal([plan.id for plan in plans], sorted([FREE, PRO, SMALL, SINGLE]), "plans of the active config, by id")
    equal(plans, [kit_config().plans[plan.id] for plan in plans], "definitions of the plans")


async def check_default_plan_serves_users_without_one(harness: Harness) -> None:
    store = harness.store
    newcomer, assigned = user(), await on_plan(store, SMALL)
    try:
        await store.set_active_pricing(kit_config(default_plan=FREE), "ducto conformance kit, default plan")
        equal((await store.get_user_plan(newcomer)).plan_id, FREE, "plan of an unknown user")
        equal((await store.check_allowance(newcomer)).allowance, 100, "allowance of an unknown user")
        expect(await store.charge_credits(newcomer, 100), "spending the default plan's allowance")
        equal((await store.get_user_plan(assigned)).plan_id, SMALL, "plan of a user who has one")
        expect(await store.set_user_plan(assigned, None), "back to the default")
        equal((await store.get_user_plan(assigned)).plan_id, FREE, "plan after going back to the default")
    finally:
        await publish_kit_config(store)
    equal((await store.get_user_plan(newcomer)).plan_id, None, "plan once there is no default any more")


async def check_dropped_plan_stays_with_its_users(harness: Harness) -> None:
    """A publish that drops a plan takes nothing from those who are on it; nobody new gets it."""
    store = harness.store
    dropped = key("kit-dropped")
    holder, late = user(), user()
    extra = {dropped: {"id": dropped, "name": "Dropped", "free_allowance": 77, "features": ["old"]}}
    try:
        await store.set_active_pricing(kit_config(extra_plans=extra), "ducto conformance kit, one more plan")
        expect(await store.set_user_plan(holder, dropped), "assigning a plan that will be dropped")
    finally:
        await publish_kit_config(store)
    fields(
        await store.get_user_plan(holder),
        {"plan_id": dropped, "name": "Dropped", "free_allowance": 77, "features": ("old",)},
        "a dropped plan's last definition",
    )
    equal((await store.check_allowance(holder)).allowance, 77, "allowance of a dropped plan")
    expect(await store.reserve_credits(holder, 10, "chat", feature="old"), "a feature of a dropped plan")
    refused(await store.set_user_plan(late, dropped), "plan_not_found", "assigning a dropped plan")
    ensure(dropped not in [plan.id for plan in await store.list_plans()], "list_plans shows no dropped plan")
    every = [plan.id for plan in await store.list_plans(include_dropped=True)]
    ensure(dropped in every and FREE in every, f"list_plans(include_dropped=True) shows both, found {every!r}")


async def check_feature_has_to_be_in_the_plan(harness: Harness) -> None:
    store = harness.store
    entitled, without, planless = (
        await on_plan(store, PRO, credits=100),
        await on_plan(store, FREE, credits=100),
        await fund(store, 100),
    )
    expect(await store.reserve_credits(entitled, 1, "chat", feature=PLANLESS_FEATURE), "reserve with the feature")
    expect(await store.charge_credits(entitled, 1, feature=PLANLESS_FEATURE), "charge with the feature")
    for payer in (without, planless):
        result = refused(
            await store.reserve_credits(payer, 1, "chat", feature=PLANLESS_FEATURE),
            "feature_not_entitled",
            "reserve without the feature",
        )
        equal(known(result.details, "details").feature, PLANLESS_FEATURE, "feature that was refused")
        refused(
            await store.charge_credits(payer, 1, feature=PLANLESS_FEATURE),
            "feature_not_entitled",
            "charge without the feature",
        )
        expect(await store.reserve_credits(payer, 1, "chat"), "reserve that asks for no feature")


async def check_reservation_keeps_plan_and_price_of_its_admission(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, PRO, credits=100)
    result = expect(await store.reserve_credits(payer, 10, "chat", pricing_version="v-1"), "reserve")
    fields(result, {"plan_id": PRO, "pricing_version": "v-1"}, "plan and price of a reservation")
    expect(await store.set_user_plan(payer, FREE), "change of plan")
    await publish_kit_config(store)
    found = await store.get_reservation(payer, known(result.reservation_id, "reservation_id"))
    fields(found, {"plan_id": PRO, "pricing_version": "v-1"}, "reservation after plan and price have changed")
