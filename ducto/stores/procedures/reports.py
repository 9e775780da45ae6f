"""Spend caps and spend reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.models import (
    AggregateStatsRow,
    CapCheckResult,
    CapType,
    DailySpendRow,
    SpendByModelRow,
    SpendByUserRow,
    SpendCap,
    TopUserRow,
)
from ducto.stores.procedures.calling import ProcedureCaller

__all__ = ["ReportProcedures"]


def _window(start: datetime, end: datetime) -> dict[str, datetime]:
    first, last = arguments.check_window(start, end)
    return {"p_start": first, "p_end": last}


class ReportProcedures(ProcedureCaller):
    """Caps and analytics."""

    async def check_spend_cap(
        self, user_id: str, model: str | None = None, amount: int | None = None
    ) -> CapCheckResult:
        arguments.check_id(user_id)
        arguments.check_optional_id(model, name="model")
        if amount is not None:
            arguments.check_amount(amount)
        return await self._read(
            CapCheckResult, "ducto_check_cap", {"p_user_id": user_id, "p_model": model, "p_amount": amount}
        )

    async def set_spend_cap(self, cap: SpendCap) -> None:
        if not isinstance(cap, SpendCap):
            raise ArgumentError(f"cap must be a SpendCap, not {type(cap).__name__}.")
        arguments.check_id(cap.user_id)
        arguments.check_optional_id(cap.model, name="model")
        # A SpendCap may have been built without pydantic's checks.
        arguments.check_choice(cap.cap_type, arguments.CAP_TYPES, name="cap_type")
        arguments.check_choice(cap.action, arguments.CAP_ACTIONS, name="action")
        arguments.check_amount(cap.limit, name="limit")
        await self._json(
            "ducto_set_cap",
            {
                "p_user_id": cap.user_id,
                "p_cap_type": cap.cap_type,
                "p_limit": cap.limit,
                "p_action": cap.action,
                "p_model": cap.model,
            },
        )

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        arguments.check_id(user_id)
        arguments.check_choice(cap_type, arguments.CAP_TYPES, name="cap_type")
        arguments.check_optional_id(model, name="model")
        removed = await self._value(
            "ducto_remove_cap", {"p_user_id": user_id, "p_cap_type": cap_type, "p_model": model}
        )
        return bool(removed)

    async def list_spend_caps(self, user_id: str) -> list[SpendCap]:
        arguments.check_id(user_id)
        return await self._rows(SpendCap, "ducto_list_caps", {"p_user_id": user_id})

    async def spend_by_user(self, start: datetime, end: datetime) -> Sequence[SpendByUserRow]:
        return await self._rows(SpendByUserRow, "ducto_spend_by_user", _window(start, end), long=True)

    async def spend_by_model(self, start: datetime, end: datetime) -> Sequence[SpendByModelRow]:
        return await self._rows(SpendByModelRow, "ducto_spend_by_model", _window(start, end), long=True)

    async def top_users(self, limit: int, start: datetime, end: datetime) -> Sequence[TopUserRow]:
        arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
        return await self._rows(TopUserRow, "ducto_top_users", {"p_limit": limit, **_window(start, end)}, long=True)

    async def daily_spend(self, start: datetime, end: datetime) -> Sequence[DailySpendRow]:
        return await self._rows(DailySpendRow, "ducto_daily_spend", _window(start, end), long=True)

    async def aggregate_stats(self, start: datetime, end: datetime) -> AggregateStatsRow:
        return await self._read(AggregateStatsRow, "ducto_aggregate_stats", _window(start, end), long=True)

    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        arguments.check_int(limit, minimum=1, maximum=1_000_000, name="limit")
        rolled_up: int = await self._value("ducto_roll_up", {"p_limit": limit}, long=True)
        return rolled_up
