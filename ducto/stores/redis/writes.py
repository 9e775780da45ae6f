"""What else writes to accounts: each verb drops what is kept of those that it touches."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ducto.models import (
    AddCreditsResult,
    AddTeamMemberResult,
    AddType,
    AdjustCreditsResult,
    CapType,
    DeleteTeamResult,
    MemberCapWindow,
    Metadata,
    RefundResult,
    SetUserPlanResult,
    SpendCap,
    TransferResult,
)
from ducto.stores.redis.front import RedisFront

__all__ = ["RedisWrites"]


class RedisWrites(RedisFront):
    """Credits that come, move and go back; plans, caps and teams.

    Not the sweep, the reaper and the pruning: what they book was due already, and every answer since has shown it as
    booked.
    """

    async def add_credits(
        self,
        user_id: str,
        amount: int,
        type: AddType = "adjustment",
        metadata: Metadata = None,
        expires_at: datetime | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AddCreditsResult:
        account = self._keys.user(user_id)
        given = {"amount": amount, "terms": (type, expires_at), "metadata": metadata}
        return await self._answered(
            account,
            lambda: self._inner.add_credits(
                user_id, amount, type, metadata, expires_at, idempotency_key=idempotency_key
            ),
            self._keyed(AddCreditsResult, "add", account, idempotency_key, given),
        )

    async def add_team_credits(
        self,
        team_id: str,
        amount: int,
        type: AddType = "adjustment",
        metadata: Metadata = None,
        expires_at: datetime | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AddCreditsResult:
        account = self._keys.team(team_id)
        given = {"amount": amount, "terms": (type, expires_at), "metadata": metadata}
        return await self._answered(
            account,
            lambda: self._inner.add_team_credits(
                team_id, amount, type, metadata, expires_at, idempotency_key=idempotency_key
            ),
            self._keyed(AddCreditsResult, "add", account, idempotency_key, given),
            team_id=team_id,
        )

    async def refund_credits(
        self,
        transaction_id: str,
        amount: int | None = None,
        reason: str | None = None,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
    ) -> RefundResult:
        async def refund() -> RefundResult:
            return await self._inner.refund_credits(
                transaction_id, amount, reason, metadata, idempotency_key=idempotency_key
            )

        account = self._keys.of_minted(transaction_id)
        if account is None:
            return await refund()  # Which refuses it: no account has such a transaction.
        given = {"amount": amount, "transaction_id": transaction_id, "terms": (reason,), "metadata": metadata}
        return await self._answered(
            account, refund, self._keyed(RefundResult, "refund", account, idempotency_key, given)
        )

    async def adjust_credits(
        self,
        user_id: str,
        amount: int,
        *,
        direction: Literal["credit", "debit"],
        metadata: Metadata = None,
        min_balance: int = 0,
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> AdjustCreditsResult:
        return await self._written(
            [self._keys.user(user_id)],
            lambda: self._inner.adjust_credits(
                user_id,
                amount,
                direction=direction,
                metadata=metadata,
                min_balance=min_balance,
                force=force,
                idempotency_key=idempotency_key,
            ),
        )

    async def transfer_credits(
        self,
        from_user_id: str,
        to_user_id: str,
        amount: int,
        *,
        metadata: Metadata = None,
        min_balance: int = 0,
        idempotency_key: str | None = None,
    ) -> TransferResult:
        return await self._written(
            [self._keys.user(from_user_id), self._keys.user(to_user_id)],
            lambda: self._inner.transfer_credits(
                from_user_id,
                to_user_id,
                amount,
                metadata=metadata,
                min_balance=min_balance,
                idempotency_key=idempotency_key,
            ),
        )

    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        return await self._written([self._keys.user(user_id)], lambda: self._inner.set_user_plan(user_id, plan_id))

    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        await self._written(
            [self._keys.user(user_id)],
            lambda: self._inner.increment_usage_window(user_id, plan_id, amount, idempotency_key=idempotency_key),
        )

    async def set_spend_cap(self, cap: SpendCap) -> None:
        user_id = cap.user_id if isinstance(cap, SpendCap) else ""
        await self._written([self._keys.user(user_id)], lambda: self._inner.set_spend_cap(cap))

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        return await self._written(
            [self._keys.user(user_id)], lambda: self._inner.remove_spend_cap(user_id, cap_type, model=model)
        )

    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        return await self._written(
            [self._keys.team(team_id)],
            lambda: self._inner.add_team_member(team_id, user_id, role, spend_cap, spend_cap_window=spend_cap_window),
        )

    async def set_member_cap(
        self,
        team_id: str,
        user_id: str,
        spend_cap: int | None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        return await self._written(
            [self._keys.team(team_id)],
            lambda: self._inner.set_member_cap(team_id, user_id, spend_cap, spend_cap_window=spend_cap_window),
        )

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        return await self._written([self._keys.team(team_id)], lambda: self._inner.remove_team_member(team_id, user_id))

    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        return await self._written([self._keys.team(team_id)], lambda: self._inner.delete_team(team_id))
