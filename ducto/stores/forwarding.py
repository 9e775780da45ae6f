"""`ForwardingStore`: a store in front of another one, which answers everything as the other one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from ducto.models import (
    AddCreditsResult,
    AddTeamMemberResult,
    AddType,
    AdjustCreditsResult,
    AggregateStatsRow,
    AllowanceResult,
    AvailableResult,
    BalanceResult,
    CapCheckResult,
    CapType,
    CreateTeamResult,
    DailySpendRow,
    DeductionResult,
    DeleteTeamResult,
    EventPage,
    GetUserPlanResult,
    MemberCapWindow,
    Metadata,
    OveragePolicy,
    PlanDefinition,
    PricingConfigData,
    PricingConfigHistoryItem,
    PricingConfigResult,
    ReapResult,
    RefundResult,
    ReleaseResult,
    RenewResult,
    Reservation,
    ReservationPage,
    ReservationState,
    ReserveResult,
    SetupResult,
    SetUserPlanResult,
    SpendByModelRow,
    SpendByUserRow,
    SpendCap,
    SweepResult,
    TeamBalanceResult,
    TeamDeductionResult,
    TeamMember,
    TopUserRow,
    Transaction,
    TransactionPage,
    TransferResult,
    VerifyResult,
)
from ducto.stores.base import CreditStore
from ducto.usage import UsageMetrics

__all__ = ["ForwardingStore"]


class ForwardingStore(CreditStore):
    """Every call goes to `inner` with all its arguments, unchanged, and so does the answer back.

    To be derived from: override what is to be different, and ask `self.inner` where it is not. What the interface
    gains is forwarded here as well, which a test ensures, so that a derived store never falls back to the defaults of
    `CreditStore`. Closing it closes `inner` only with `owns_inner`: who opens closes.
    """

    def __init__(self, inner: CreditStore, *, owns_inner: bool = False) -> None:
        self._inner = inner
        self._owns_inner = owns_inner
        self.durable: bool = inner.durable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r})"

    @property
    def inner(self) -> CreditStore:
        """The store behind this one."""
        return self._inner

    @property
    def books_name(self) -> str | None:
        return self._inner.books_name

    async def aclose(self) -> None:
        if self._owns_inner:
            await self._inner.aclose()

    # SchemaStore
    async def setup(self, database_url: str | None = None) -> SetupResult:
        return await self._inner.setup(database_url)

    async def ping(self) -> None:
        await self._inner.ping()

    async def verify(self) -> VerifyResult:
        return await self._inner.verify()

    async def list_events(self, after: str | None = None, *, limit: int = 100) -> EventPage:
        return await self._inner.list_events(after, limit=limit)

    # BalanceStore
    async def get_balance(self, user_id: str) -> BalanceResult:
        return await self._inner.get_balance(user_id)

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        return await self._inner.get_available(user_id, team_id=team_id)

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
        return await self._inner.add_credits(
            user_id, amount, type, metadata, expires_at, idempotency_key=idempotency_key
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
        return await self._inner.adjust_credits(
            user_id,
            amount,
            direction=direction,
            metadata=metadata,
            min_balance=min_balance,
            force=force,
            idempotency_key=idempotency_key,
        )

    async def charge_credits(
        self,
        user_id: str,
        amount: int,
        operation_type: str = "charge",
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        min_balance: int = 0,
        force: bool = False,
        model: str | None = None,
        feature: str | None = None,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        pricing_version: str | None = None,
    ) -> DeductionResult:
        return await self._inner.charge_credits(
            user_id,
            amount,
            operation_type,
            metadata,
            idempotency_key=idempotency_key,
            min_balance=min_balance,
            force=force,
            model=model,
            feature=feature,
            usage=usage,
            estimated=estimated,
            pricing_version=pricing_version,
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
        return await self._inner.transfer_credits(
            from_user_id,
            to_user_id,
            amount,
            metadata=metadata,
            min_balance=min_balance,
            idempotency_key=idempotency_key,
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
        return await self._inner.refund_credits(
            transaction_id, amount, reason, metadata, idempotency_key=idempotency_key
        )

    async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
        return await self._inner.sweep_expired_credits(dry_run)

    async def get_transaction(self, transaction_id: str) -> Transaction:
        return await self._inner.get_transaction(transaction_id)

    async def list_transactions(
        self, user_id: str | None = None, *, team_id: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> TransactionPage:
        return await self._inner.list_transactions(user_id, team_id=team_id, cursor=cursor, limit=limit)

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        return await self._inner.list_ledger(after, start=start, end=end, limit=limit)

    # ReservationStore
    async def reserve_credits(
        self,
        user_id: str,
        amount: int,
        operation_type: str,
        metadata: Metadata = None,
        min_balance: int = 5,
        *,
        idempotency_key: str | None = None,
        ttl_seconds: int = 600,
        grace_seconds: int = 60,
        model: str | None = None,
        team_id: str | None = None,
        overage: OveragePolicy = "debt",
        max_settle: int | None = None,
        max_concurrent: int | None = None,
        feature: str | None = None,
        pricing_version: str | None = None,
        fingerprint: str | None = None,
        attempt_id: str | None = None,
    ) -> ReserveResult:
        return await self._inner.reserve_credits(
            user_id,
            amount,
            operation_type,
            metadata,
            min_balance,
            idempotency_key=idempotency_key,
            ttl_seconds=ttl_seconds,
            grace_seconds=grace_seconds,
            model=model,
            team_id=team_id,
            overage=overage,
            max_settle=max_settle,
            max_concurrent=max_concurrent,
            feature=feature,
            pricing_version=pricing_version,
            fingerprint=fingerprint,
            attempt_id=attempt_id,
        )

    async def deduct_credits(
        self,
        user_id: str,
        reservation_id: str,
        amount: int,
        idempotency_key: str | None = None,
        metadata: Metadata = None,
        *,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        model: str | None = None,
        pricing_version: str | None = None,
    ) -> DeductionResult:
        return await self._inner.deduct_credits(
            user_id,
            reservation_id,
            amount,
            idempotency_key,
            metadata,
            usage=usage,
            estimated=estimated,
            model=model,
            pricing_version=pricing_version,
        )

    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        return await self._inner.release_reservation(user_id, reservation_id)

    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> RenewResult:
        return await self._inner.renew_reservation(user_id, reservation_id, ttl_seconds=ttl_seconds)

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        return await self._inner.get_reservation(user_id, reservation_id)

    async def list_reservations(
        self,
        user_id: str | None = None,
        *,
        states: Sequence[ReservationState] = ("active",),
        cursor: str | None = None,
        limit: int = 50,
    ) -> ReservationPage:
        return await self._inner.list_reservations(user_id, states=states, cursor=cursor, limit=limit)

    async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
        return await self._inner.reap_expired_reservations(limit=limit)

    async def prune_reservations(self, *, ended_before_days: int = 30, limit: int = 1000) -> int:
        return await self._inner.prune_reservations(ended_before_days=ended_before_days, limit=limit)

    # PricingStore
    async def get_active_pricing(self) -> PricingConfigResult | None:
        return await self._inner.get_active_pricing()

    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        return await self._inner.set_active_pricing(
            config, label, expected_version=expected_version, idempotency_key=idempotency_key
        )

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        return await self._inner.get_pricing_config(version)

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        return await self._inner.get_pricing_history()

    async def activate_pricing(self, version: int | str) -> str:
        return await self._inner.activate_pricing(version)

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        return self._inner.on_pricing_published(heard)

    # PlanStore
    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        return await self._inner.list_plans(include_dropped=include_dropped)

    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        return await self._inner.get_user_plan(user_id)

    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        return await self._inner.set_user_plan(user_id, plan_id)

    async def check_allowance(self, user_id: str) -> AllowanceResult:
        return await self._inner.check_allowance(user_id)

    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        await self._inner.increment_usage_window(user_id, plan_id, amount, idempotency_key=idempotency_key)

    # CapStore
    async def check_spend_cap(
        self, user_id: str, model: str | None = None, amount: int | None = None
    ) -> CapCheckResult:
        return await self._inner.check_spend_cap(user_id, model, amount)

    async def set_spend_cap(self, cap: SpendCap) -> None:
        await self._inner.set_spend_cap(cap)

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        return await self._inner.remove_spend_cap(user_id, cap_type, model=model)

    async def list_spend_caps(self, user_id: str) -> list[SpendCap]:
        return await self._inner.list_spend_caps(user_id)

    # AnalyticsStore
    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        return await self._inner.roll_up_spend(limit=limit)

    async def spend_by_user(self, start: datetime, end: datetime) -> Sequence[SpendByUserRow]:
        return await self._inner.spend_by_user(start, end)

    async def spend_by_model(self, start: datetime, end: datetime) -> Sequence[SpendByModelRow]:
        return await self._inner.spend_by_model(start, end)

    async def top_users(self, limit: int, start: datetime, end: datetime) -> Sequence[TopUserRow]:
        return await self._inner.top_users(limit, start, end)

    async def daily_spend(self, start: datetime, end: datetime) -> Sequence[DailySpendRow]:
        return await self._inner.daily_spend(start, end)

    async def aggregate_stats(self, start: datetime, end: datetime) -> AggregateStatsRow:
        return await self._inner.aggregate_stats(start, end)

    # TeamStore
    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        return await self._inner.create_team(name, initial_balance, idempotency_key=idempotency_key)

    async def get_team_balance(self, team_id: str) -> TeamBalanceResult:
        return await self._inner.get_team_balance(team_id)

    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        return await self._inner.add_team_member(team_id, user_id, role, spend_cap, spend_cap_window=spend_cap_window)

    async def get_team_members(self, team_id: str) -> Sequence[TeamMember]:
        return await self._inner.get_team_members(team_id)

    async def deduct_team(
        self,
        team_id: str,
        user_id: str,
        amount: int,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        operation_type: str = "charge",
        min_balance: int = 0,
        force: bool = False,
        model: str | None = None,
        feature: str | None = None,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        pricing_version: str | None = None,
    ) -> TeamDeductionResult:
        return await self._inner.deduct_team(
            team_id,
            user_id,
            amount,
            metadata,
            idempotency_key=idempotency_key,
            operation_type=operation_type,
            min_balance=min_balance,
            force=force,
            model=model,
            feature=feature,
            usage=usage,
            estimated=estimated,
            pricing_version=pricing_version,
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
        return await self._inner.add_team_credits(
            team_id, amount, type, metadata, expires_at, idempotency_key=idempotency_key
        )

    async def set_member_cap(
        self, team_id: str, user_id: str, spend_cap: int | None, *, spend_cap_window: MemberCapWindow = "lifetime"
    ) -> AddTeamMemberResult:
        return await self._inner.set_member_cap(team_id, user_id, spend_cap, spend_cap_window=spend_cap_window)

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        return await self._inner.remove_team_member(team_id, user_id)

    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        return await self._inner.delete_team(team_id)
