"""The pricing that holds now, and the pricing that a call was admitted under."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ducto.errors import ConfigError, NotSupportedError, PricingNotFoundError
from ducto.models import GetUserPlanResult, PlanDefinition, PricingConfigData, PricingConfigResult
from ducto.pricing.engine import PricingEngine
from ducto.recently_used import RecentlyUsed
from ducto.stores.base import CreditStore
from ducto.supervisor import outcome

__all__ = ["ActivePricing", "LivePricing"]

logger: logging.Logger = logging.getLogger("ducto.manager")

#: The part of its time after which the pricing is read again while it is used.
READ_AHEAD = 0.8


@dataclass(frozen=True, slots=True)
class ActivePricing:
    """The active config, compiled, with all plans that users may have, those that only earlier configs define
    too.
    """

    id: str
    config: PricingConfigData
    engine: PricingEngine
    plans: Mapping[str, PlanDefinition]
    #: Does any plan change a price? If none does, nobody's plan has to be looked up to price a call.
    plans_matter: bool


class LivePricing:
    """Reads pricing and plans from the store and keeps them fresh: nothing used is older than the refresh
    seconds, nor than what `heard` was told of.

    Concurrent callers wait for one read, and get its error where it fails. While it is used, the pricing is read again
    in the background shortly before its time is over, so that calls rarely wait. A config is compiled only if its id
    is another than before.
    """

    #: Compiled configs of earlier versions, and plans of users, that are kept.
    VERSIONS_KEPT = 32
    USERS_KEPT = 10_000

    def __init__(self, store: CreditStore, *, pricing_refresh_seconds: float, plan_refresh_seconds: float) -> None:
        self._store = store
        self._pricing_refresh_seconds = pricing_refresh_seconds
        self._plan_refresh_seconds = plan_refresh_seconds
        self._active: ActivePricing | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        #: Grows whenever what was read may be outdated, also for a read that is under way.
        self._outdated = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._versions: RecentlyUsed[str, PricingEngine] = RecentlyUsed(self.VERSIONS_KEPT)
        self._plans: RecentlyUsed[str, tuple[float, GetUserPlanResult]] = RecentlyUsed(self.USERS_KEPT)

    def forget_active(self) -> None:
        """Read the active pricing, and everybody's plan, again before the next use."""
        self._outdated += 1
        self._read_at = float("-inf")
        self._plans.clear()

    def heard(self, version: str | None) -> None:
        """Something was published, or may have been (`None`): read it now, so that the next call need not wait."""
        if self._active is None and version is None:
            return  # Nothing was read yet, so nothing is outdated.
        self.forget_active()
        self._refresh_soon()

    async def aclose(self) -> None:
        """End what runs in the background."""
        running = [task for task in (self._refreshing, self._reading) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def forget_plan(self, user_id: str) -> None:
        """Read the user's plan again before the next use."""
        self._plans.drop(user_id)

    async def active_or_none(self) -> ActivePricing | None:
        """The active pricing, `None` if none is published. Raises `StoreError` if it is due and cannot be
        read.
        """
        age_seconds = time.monotonic() - self._read_at
        if age_seconds < self._pricing_refresh_seconds:
            if age_seconds > self._pricing_refresh_seconds * READ_AHEAD:
                self._refresh_soon()
            return self._active
        await self._read_if_older(self._pricing_refresh_seconds)
        return self._active

    def last_read(self, user_id: str) -> tuple[ActivePricing | None, GetUserPlanResult | None]:
        """The active pricing and the user's plan as read last, however long ago; `None` for what never was."""
        kept = self._plans.get(user_id)
        return self._active, None if kept is None else kept[1]

    async def active(self) -> ActivePricing:
        """The active pricing. Raises `ConfigError` if none is published."""
        active = await self.active_or_none()
        if active is None:
            raise ConfigError(
                "No pricing config is published, so no call can be priced; "
                "publish one with `await manager.publish_pricing(config)`."
            )
        return active

    async def engine_of(self, version: str | None) -> PricingEngine:
        """The prices of the config with this id (or version number, as text); of the active one for `None`.

        Raises `PricingNotFoundError`.
        """
        active = await self.active_or_none()
        if version is None:
            return (await self.active()).engine
        if active is not None and active.id == version:
            return active.engine
        engine = self._versions.get(version)
        if engine is None:
            found = await self._store.get_pricing_config(version)
            if found is None:
                raise PricingNotFoundError(f"There is no pricing config {version!r}; see get_pricing_history.")
            engine = PricingEngine(found.config, version=found.id)
            self._versions.put(version, engine)
        return engine

    async def user_plan(self, user_id: str) -> GetUserPlanResult:
        """The user's plan, at most `plan_refresh_seconds` old."""
        kept = self._plans.get(user_id)
        if kept is not None and time.monotonic() - kept[0] < self._plan_refresh_seconds:
            return kept[1]
        read_at = time.monotonic()
        plan = await self._store.get_user_plan(user_id)
        self._plans.put(user_id, (read_at, plan))
        return plan

    async def price_plan(self, active: ActivePricing, user_id: str) -> PlanDefinition | None:
        """The plan to price a new call of the user by; `None` if he has none or no plan changes a price."""
        if not active.plans_matter:
            return None
        return (await self.user_plan(user_id)).definition()

    async def plan_of_admission(
        self, user_id: str, plan_id: str | None, engine: PricingEngine
    ) -> PlanDefinition | None:
        """The plan that a reservation was made under: as the config of its version defines it, or as the last
        one that did.
        """
        if plan_id is None:
            return None
        own = engine.config.plans.get(plan_id)
        if own is not None:
            return own
        active = await self.active_or_none()
        dropped = active.plans.get(plan_id) if active is not None else None
        if dropped is not None:
            return dropped
        current = await self.user_plan(user_id)
        return current.definition() if current.plan_id == plan_id else None

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(), name="ducto pricing")

    async def _refresh(self) -> None:
        outdated = None
        try:
            while outdated != self._outdated:
                outdated = self._outdated
                await self._read_if_older(self._pricing_refresh_seconds * READ_AHEAD)
        except Exception as error:  # noqa: BLE001 - the call that needs it reads again, and raises
            logger.warning("The pricing could not be read ahead (%s).", type(error).__name__)

    async def _read_if_older(self, seconds: float) -> None:
        if self._reading is not None:
            await outcome(self._reading)  # Which had begun before we came, perhaps too early.
        if time.monotonic() - self._read_at < seconds:
            return
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read(), name="ducto pricing read")
            self._reading.add_done_callback(self._read_ended)
        await outcome(self._reading)

    def _read_ended(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # Seen, also where nobody waits for it any more.

    async def _read(self) -> None:
        # Taken before the read, so that what is used is never older than promised, however slow the store is.
        started, outdated = time.monotonic(), self._outdated
        found = await self._store.get_active_pricing()
        before = self._active
        self._active = None if found is None else await self._made(found, before)
        if (before.id if before else None) != (found.id if found else None):
            self._plans.clear()
            if before is not None:
                self._versions.put(before.id, before.engine)
        if outdated == self._outdated:
            self._read_at = started

    async def _made(self, found: PricingConfigResult, before: ActivePricing | None) -> ActivePricing:
        same = before is not None and before.id == found.id
        engine = before.engine if before is not None and same else PricingEngine(found.config, version=found.id)
        try:
            plans = {plan.id: plan for plan in await self._store.list_plans(include_dropped=True)}
            matter = _changes_prices(plans.values())
        except NotSupportedError:
            # Nobody can say whether an older plan changes prices, so every user's plan is looked up.
            plans, matter = {}, True
        plans.update(found.config.plans)
        return ActivePricing(found.id, found.config, engine, plans, matter)


def _changes_prices(plans: Iterable[PlanDefinition]) -> bool:
    return any(plan.rate_overrides or plan.per_operation for plan in plans)
