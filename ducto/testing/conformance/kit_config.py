"""The one pricing config that all checks share, so that their order does not matter."""

from __future__ import annotations

from typing import Any

from ducto.models import PricingConfigData
from ducto.stores.base import CreditStore
from ducto.testing.conformance.helpers import expect, fund, user

__all__ = [
    "FREE",
    "LABEL",
    "PLANLESS_FEATURE",
    "PRO",
    "SINGLE",
    "SMALL",
    "kit_config",
    "on_plan",
    "publish_kit_config",
    "use_kit_config",
]

LABEL = "ducto conformance kit"
#: 100 credits a month and the feature `chat`.
FREE = "kit-free"
#: 300 credits a month, the features `chat` and `vision`.
PRO = "kit-pro"
#: 40 credits a month, no feature.
SMALL = "kit-small"
#: No allowance, one call at a time.
SINGLE = "kit-single"
#: A feature of `PRO` that the other plans lack.
PLANLESS_FEATURE = "vision"


def kit_config(
    *, default_plan: str | None = None, extra_plans: dict[str, dict[str, Any]] | None = None
) -> PricingConfigData:
    """The kit's config, with other plans or a default plan for the checks about these."""
    plans: dict[str, dict[str, Any]] = {
        FREE: {"id": FREE, "name": "Free", "free_allowance": 100, "features": ["chat"]},
        PRO: {
            "id": PRO,
            "name": "Pro",
            "free_allowance": 300,
            "features": ["chat", PLANLESS_FEATURE],
            "rate_overrides": {"kit-model": "input_tokens + output_tokens"},
            "per_operation": {"report": 7},
        },
        SMALL: {"id": SMALL, "name": "Small", "free_allowance": 40},
        SINGLE: {"id": SINGLE, "name": "Single", "free_allowance": 0, "max_concurrent": 1},
    }
    plans.update(extra_plans or {})
    return PricingConfigData.model_validate(
        {
            "version": 1,
            "models": {"kit-model": "input_tokens * 2 + output_tokens * 4"},
            "fixed": {"report": 9},
            "plans": plans,
            "default_plan": default_plan,
        }
    )


async def publish_kit_config(store: CreditStore) -> str:
    """Make the kit's config the active one, as a new version; its id."""
    return await store.set_active_pricing(kit_config(), LABEL)


async def use_kit_config(store: CreditStore) -> None:
    """Publish the kit's config unless it is active already."""
    active = await store.get_active_pricing()
    if active is None or active.label != LABEL:
        await publish_kit_config(store)


async def on_plan(store: CreditStore, plan_id: str, *, credits: int = 0) -> str:
    """A new user on one of the kit's plans, with credits of its own."""
    await use_kit_config(store)
    member = user(plan_id)
    expect(await store.set_user_plan(member, plan_id), f"assigning the plan {plan_id}")
    if credits:
        await fund(store, credits, user_id=member)
    return member
