"""Checks of the versions of the pricing config."""

from __future__ import annotations

from typing import Any

from ducto.errors import PricingError, PricingNotFoundError, VersionConflictError
from ducto.testing.conformance.helpers import ensure, equal, fields, key, known, raises
from ducto.testing.conformance.kit_config import FREE, LABEL, kit_config, publish_kit_config, use_kit_config
from ducto.testing.harness import Harness


async def check_publish_makes_a_new_active_version(harness: Harness) -> None:
    store = harness.store
    first_id = await publish_kit_config(store)
    first = known(await store.get_active_pricing(), "active pricing")
    fields(first, {"id": first_id, "label": LABEL, "active": True, "config": kit_config()}, "active pricing")
    second_id = await store.set_active_pricing(kit_config().model_dump(mode="json"), LABEL)
    second = known(await store.get_active_pricing(), "active pricing")
    fields(
        second,
        {"id": second_id, "version": first.version + 1, "config": kit_config()},
        "a config published as a dict",
    )


async def check_old_versions_stay_readable(harness: Harness) -> None:
    store = harness.store
    old_id = await publish_kit_config(store)
    await publish_kit_config(store)
    by_id = known(await store.get_pricing_config(old_id), "an old version by its id")
    by_number = known(await store.get_pricing_config(by_id.version), "an old version by its number")
    equal(by_number, by_id, "an old version by number and by id")
    fields(by_id, {"id": old_id, "active": False, "config": kit_config()}, "an old version")
    equal(await store.get_pricing_config(10**9), None, "a version number that there is not")
    equal(await store.get_pricing_config(key("pricing")), None, "an id that there is not")


async def check_history_is_newest_first(harness: Harness) -> None:
    store = harness.store
    ids = [await store.set_active_pricing(kit_config(), LABEL) for _ in range(3)]
    history = await store.get_pricing_history()
    equal([item.id for item in history[:3]], ids[::-1], "the newest three of the history")
    numbers = [item.version for item in history]
    equal(numbers, sorted(numbers, reverse=True), "version numbers of the history")
    equal([item.id for item in history if item.active], [ids[-1]], "exactly one version is active")


async def check_activate_brings_an_old_version_back(harness: Harness) -> None:
    store = harness.store
    old_id = await publish_kit_config(store)
    new_id = await publish_kit_config(store)
    try:
        equal(await store.activate_pricing(old_id), old_id, "id of the version made active")
        equal(known(await store.get_active_pricing(), "active pricing").id, old_id, "active version")
        number = known(await store.get_pricing_config(new_id), "the newer version").version
        equal(await store.activate_pricing(number), new_id, "id of the version made active by number")
        for unknown in (10**9, key("pricing")):
            await raises(PricingNotFoundError, store.activate_pricing(unknown), f"activating {unknown!r}")
        equal(
            known(await store.get_active_pricing(), "active pricing").id,
            new_id,
            "active version after refusals",
        )
    finally:
        await publish_kit_config(store)


async def check_publish_may_name_the_version_it_replaces(harness: Harness) -> None:
    store = harness.store
    await use_kit_config(store)
    active = known(await store.get_active_pricing(), "active pricing")
    await store.set_active_pricing(kit_config(), LABEL, expected_version=active.version)
    second = known(await store.get_active_pricing(), "active pricing")
    await store.set_active_pricing(kit_config(), LABEL, expected_version=second.id)
    third = known(await store.get_active_pricing(), "active pricing")
    for stale in (active.version, second.id, 0):
        await raises(
            VersionConflictError,
            store.set_active_pricing(kit_config(), LABEL, expected_version=stale),
            f"a publish that expects {stale!r} to be active",
        )
    equal(
        known(await store.get_active_pricing(), "active pricing").id,
        third.id,
        "active version after conflicts",
    )


async def check_bad_config_is_not_published(harness: Harness) -> None:
    store = harness.store
    await use_kit_config(store)
    before = known(await store.get_active_pricing(), "active pricing")
    bad: tuple[dict[str, Any], ...] = (
        {"version": 2},
        {"models": {"m": "input_tokens *"}},
        {"models": {"m": "inputt_tokens * 2"}},
        {"models": {"m": "input_tokens ** 2"}},
        {"min_balance": 1.5},
        {"default_plan": "nowhere"},
        {"plans": {"p": {"free_allowance": -1}}},
        {"unknown_field": 1},
    )
    for config in bad:
        await raises(PricingError, store.set_active_pricing(config), f"publishing {config!r}")
    equal(
        known(await store.get_active_pricing(), "active pricing").id,
        before.id,
        "active version after bad configs",
    )


async def check_published_prices_stay_exact(harness: Harness) -> None:
    """A decimal price comes back digit for digit, whatever the store keeps it in."""
    store = harness.store
    config = kit_config().model_copy()
    exact = config.model_validate(
        {
            **config.model_dump(mode="json"),
            "models": {"exact": {"unit": "usd", "input": "0.1234567890123456789", "output": "1000000000000.01"}},
        }
    )
    try:
        published = await store.set_active_pricing(exact, "ducto conformance kit, exact prices")
        found = known(await store.get_pricing_config(published), "the published config")
        equal(found.config.models, exact.models, "prices after a round trip")
        ensure(FREE in found.config.plans, "plans after a round trip")
    finally:
        await publish_kit_config(store)
