"""Pricing versions, plans, allowances and caps: what limits and prices a user's calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ducto.manager.core import ManagerCore, key_or_new
from ducto.manager.refusals import accepted
from ducto.models import (
    AllowanceResult,
    CapCheckResult,
    CapType,
    GetUserPlanResult,
    PlanDefinition,
    PricingConfigData,
    PricingConfigHistoryItem,
    PricingConfigResult,
    SetUserPlanResult,
    SpendCap,
)
from ducto.pricing import CostBreakdown, PricingEngine, compile_pricing, parse_pricing
from ducto.retrying import BRIEF, retried
from ducto.usage import UsageMetrics

__all__ = ["PlanVerbs"]


class PlanVerbs(ManagerCore):
    async def publish_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Check and publish `config`, make it active, return its id. Event: `credits.pricing_published`.

        This manager prices by it at once, others within their `pricing_refresh_seconds`; calls that were
        admitted before keep their prices. With `expected_version` (a version number or id; 0: none) it is
        refused with `VersionConflictError` unless that version is active. Raises `PricingConfigError`,
        `ExpressionError`, `IdempotencyMismatchError`.
        """
        here = self._here()
        data = parse_pricing(config)
        compile_pricing(data)
        key = key_or_new(idempotency_key)
        try:
            version_id = await retried(
                lambda: self.store.set_active_pricing(
                    data, label, expected_version=expected_version, idempotency_key=key
                ),
                policy=BRIEF,
            )
        finally:
            here.pricing.forget_active()
        self.events.emit("credits.pricing_published", data={"id": version_id, "label": label})
        return version_id

    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """`publish_pricing` under the store's name."""
        return await self.publish_pricing(
            config, label, expected_version=expected_version, idempotency_key=idempotency_key
        )

    async def activate_pricing(self, version: int | str) -> str:
        """Make an earlier version active again, return its id. Event: `credits.pricing_activated`.

        Raises `PricingNotFoundError`.
        """
        here = self._here()
        try:
            version_id = await retried(lambda: self.store.activate_pricing(version), policy=BRIEF)
        finally:
            here.pricing.forget_active()
        self.events.emit("credits.pricing_activated", data={"id": version_id})
        return version_id

    async def get_active_pricing(self) -> PricingConfigResult | None:
        """The active config as the store has it, `None` before the first publish."""
        return await self._read(self.store.get_active_pricing)

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        """A published config by version number or id; `None` where there is none."""
        return await self._read(lambda: self.store.get_pricing_config(version))

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        """All versions, newest first, without their configs."""
        return await self._read(self.store.get_pricing_history)

    async def pricing(self, version: str | None = None) -> PricingEngine:
        """The prices of the active config, at most `pricing_refresh_seconds` old, or of the version with this
        id.

        Raises `ConfigError` if none is published, `PricingNotFoundError` for an unknown version.
        """
        return await self._here().pricing.engine_of(version)

    async def price(self, metrics: UsageMetrics, *, user_id: str | None = None) -> CostBreakdown:
        """What the active config charges for `metrics`: at list price, or by the plan of `user_id`.

        Raises `ConfigError` if none is published, `UnknownModelError` and other `PricingError`.
        """
        pricing = self._here().pricing
        active = await pricing.active()
        plan = await pricing.price_plan(active, user_id) if user_id is not None else None
        return active.engine.calculate(metrics, plan)

    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        """The plans of the active config by id; `include_dropped` adds those that only earlier configs
        define.
        """
        return await self._read(lambda: self.store.list_plans(include_dropped=include_dropped))

    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        """The plan that holds for the user, as the store has it now."""
        return await self._read(lambda: self.store.get_user_plan(user_id))

    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        """Assign a plan, `None`: back to the default. Event: `credits.plan_changed`, if it is another than
        before.

        Raises `PlanNotFoundError`, `ArgumentError`.
        """
        pricing = self._here().pricing
        try:
            result = accepted(
                await retried(lambda: self.store.set_user_plan(user_id, plan_id), policy=BRIEF),
                "set_user_plan",
            )
        finally:
            pricing.forget_plan(user_id)
        if result.plan_id != result.previous_plan_id:
            self._announcer.happened("credits.plan_changed", result, user_id=user_id)
        return result

    async def check_feature(self, user_id: str, feature: str) -> bool:
        """Does the user's plan, at most `plan_refresh_seconds` old, have `feature`?"""
        plan = await self._here().pricing.user_plan(user_id)
        return feature in plan.features

    async def check_allowance(self, user_id: str) -> AllowanceResult:
        """The allowance of the current month."""
        return await self._read(lambda: self.store.check_allowance(user_id))

    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        """Book `amount` of allowance as used, up to what is left.

        Raises `ArgumentError`, `PlanNotFoundError`, `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        await self._read(lambda: self.store.increment_usage_window(user_id, plan_id, amount, idempotency_key=key))

    async def check_spend_cap(
        self, user_id: str, model: str | None = None, amount: int | None = None
    ) -> CapCheckResult:
        """Would `amount` more (`None`: any credit at all) pass the caps? Counts what is spent and what is
        held.
        """
        return await self._read(lambda: self.store.check_spend_cap(user_id, model, amount))

    async def set_spend_cap(self, cap: SpendCap) -> None:
        """Set or replace the cap for its user, window and model. It counts what its window has already spent."""
        await self._read(lambda: self.store.set_spend_cap(cap))

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        """Remove a cap; false where there was none."""
        return await self._read(lambda: self.store.remove_spend_cap(user_id, cap_type, model=model))

    async def list_spend_caps(self, user_id: str) -> list[SpendCap]:
        """The user's caps, model caps first, short windows first."""
        return await self._read(lambda: self.store.list_spend_caps(user_id))
