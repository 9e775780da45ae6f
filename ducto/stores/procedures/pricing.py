"""Versions of the pricing config, plans and allowances."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ducto import arguments
from ducto.errors import ArgumentError, PricingNotFoundError
from ducto.models import (
    AllowanceResult,
    GetUserPlanResult,
    PlanDefinition,
    PricingConfigData,
    PricingConfigHistoryItem,
    PricingConfigResult,
    SetUserPlanResult,
)
from ducto.pricing import compile_pricing, parse_pricing
from ducto.stores.procedures.calling import ProcedureCaller, mint_key, returns_refusals

__all__ = ["PricingProcedures"]


def _plain(value: Any) -> Any:
    """A config as JSON. Prices are text in one spelling, so that equal configs are equal text: 2.50 is 2.5."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _version_text(version: object) -> str:
    """A version by number or by id: the id is the number as text."""
    if isinstance(version, bool) or not isinstance(version, (int, str)):
        raise ArgumentError(f"A pricing version is a number or an id, not {type(version).__name__}.")
    return str(version)


def _may_exist(version: str) -> bool:
    return version.isascii() and version.isdecimal() and len(version) <= 16


class PricingProcedures(ProcedureCaller):
    """Pricing and plans."""

    #: The version that was active when last asked, as the database told it without the config, and the answer.
    _last_active: tuple[Any, PricingConfigResult] | None = None

    async def get_active_pricing(self) -> PricingConfigResult | None:
        """As every store's. The config that was read last is not read again while its version is the active one."""
        last = self._last_active
        if last is not None and last[0] == await self._value("ducto_active_version", {}):
            return last[1]
        found = await self._value("ducto_get_pricing", {"p_version": None})
        if found is None:
            return None
        active = self._parsed(PricingConfigResult, "ducto_get_pricing", found)
        self._last_active = {name: each for name, each in found.items() if name != "config"}, active
        return active

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        wanted = _version_text(version)
        found = await self._value("ducto_get_pricing", {"p_version": wanted}) if _may_exist(wanted) else None
        return None if found is None else self._parsed(PricingConfigResult, "ducto_get_pricing", found)

    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        arguments.check_optional_id(label, name="label")
        arguments.check_key(idempotency_key)
        data = parse_pricing(config)
        compile_pricing(data)
        expected = None if expected_version is None else _version_text(expected_version)
        if expected is not None and not (expected.isascii() and expected.isprintable()):
            expected = ascii(expected)  # It matches no version, and must not fail to be sent.
        published: str = await self._value(
            "ducto_publish_pricing",
            {
                "p_config": _plain(data.model_dump()),
                "p_label": label,
                "p_expected_version": expected,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )
        return published

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        return await self._rows(PricingConfigHistoryItem, "ducto_pricing_history", {})

    async def activate_pricing(self, version: int | str) -> str:
        wanted = _version_text(version)
        if not _may_exist(wanted):
            raise PricingNotFoundError(f"There is no pricing version {version!r}.")
        activated: str = await self._value("ducto_activate_pricing", {"p_version": wanted})
        return activated

    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        return await self._rows(PlanDefinition, "ducto_list_plans", {"p_include_dropped": bool(include_dropped)})

    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        arguments.check_id(user_id)
        return await self._read(GetUserPlanResult, "ducto_get_plan", {"p_user_id": user_id})

    @returns_refusals(SetUserPlanResult)
    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        arguments.check_id(user_id)
        arguments.check_optional_id(plan_id, name="plan_id")
        return await self._outcome(SetUserPlanResult, "ducto_set_plan", {"p_user_id": user_id, "p_plan_id": plan_id})

    async def check_allowance(self, user_id: str) -> AllowanceResult:
        arguments.check_id(user_id)
        return await self._read(AllowanceResult, "ducto_check_allowance", {"p_user_id": user_id})

    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        arguments.check_amount(amount)
        arguments.check_id(user_id)
        arguments.check_id(plan_id, name="plan_id")
        arguments.check_key(idempotency_key)
        await self._json(
            "ducto_use_allowance",
            {
                "p_user_id": user_id,
                "p_plan_id": plan_id,
                "p_amount": amount,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )
