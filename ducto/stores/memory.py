"""`MemoryStore`: the ledger's rules over plain objects, for tests, demos and a single process.

It is also the model that the other stores are compared with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeVar

from ducto import ledger
from ducto.arguments import check_int
from ducto.errors import ConfigError, CreditError
from ducto.ledger import analytics, balances, caps, listing, plans, publish, reservations, teams
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
    Outcome,
    OveragePolicy,
    PlanDefinition,
    PricingConfigData,
    PricingConfigHistoryItem,
    PricingConfigResult,
    ReapResult,
    RefundResult,
    RefusalDetails,
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

__all__ = ["MemoryStore"]

Result = TypeVar("Result", bound=Outcome)
Value = TypeVar("Value")


_utc_now = partial(datetime.now, UTC)


def _refusal(result: type[Result], error: CreditError) -> Result:
    details = RefusalDetails.model_validate(error.details) if error.details else None
    return result(error=error.code, message=error.message, details=details)


class MemoryStore(CreditStore):
    """All of `CreditStore` in this process's memory; everything is gone with the process.

    Safe under threads and tasks: one verb runs at a time. `clock` gives aware datetimes (default: the system's); the
    time of an account never goes back, whatever the clock does.
    """

    def __init__(self, *, clock: Callable[[], datetime] = _utc_now) -> None:
        if clock().tzinfo is None:
            raise ConfigError("The clock of a MemoryStore must return aware datetimes, e.g. datetime.now(UTC).")
        self._clock = clock
        self._book = ledger.Book()
        # One lock for the book, not one an account: a verb takes microseconds, and the interpreter runs one at a time.
        self._lock = threading.Lock()

    def _answer(self, result: type[Result], verb: Callable[[ledger.Book, datetime], Result]) -> Result:
        """Run a verb whose refusals are returned as codes.

        The verbs of every call (reserve, deduct, charge) do the same in place, without a closure over so many
        arguments; reserve and deduct pass theirs by position. Each would take a twentieth of their time.
        """
        with self._lock:
            try:
                return verb(self._book, self._clock())
            except CreditError as error:
                return _refusal(result, error)

    def _call(self, verb: Callable[[ledger.Book, datetime], Value]) -> Value:
        """Run a verb whose refusals are raised."""
        with self._lock:
            return verb(self._book, self._clock())

    # The store itself

    async def setup(self, database_url: str | None = None) -> SetupResult:
        return SetupResult(success=True)

    async def ping(self) -> None:
        return

    async def verify(self) -> VerifyResult:
        return self._call(ledger.verify)

    async def list_events(self, after: str | None = None, *, limit: int = 100) -> EventPage:
        return self._call(lambda book, _: listing.list_events(book, after, limit=limit))

    # Balances

    async def get_balance(self, user_id: str) -> BalanceResult:
        return self._call(lambda book, now: balances.get_balance(book, now, user_id))

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        return self._call(lambda book, now: balances.get_available(book, now, user_id, team_id))

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
        return self._answer(
            AddCreditsResult,
            lambda book, now: ledger.add(
                book,
                now,
                "user",
                user_id,
                amount,
                type,
                metadata,
                expires_at,
                idempotency_key=idempotency_key,
            ),
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
        return self._answer(
            AdjustCreditsResult,
            lambda book, now: ledger.adjust(
                book,
                now,
                user_id,
                amount,
                direction=direction,
                metadata=metadata,
                min_balance=min_balance,
                force=force,
                idempotency_key=idempotency_key,
            ),
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
        with self._lock:
            try:
                return ledger.charge(
                    self._book,
                    self._clock(),
                    user_id,
                    amount,
                    operation_type,
                    metadata,
                    team_id=None,
                    idempotency_key=idempotency_key,
                    min_balance=min_balance,
                    force=force,
                    model=model,
                    feature=feature,
                    usage=usage,
                    estimated=estimated,
                    pricing_version=pricing_version,
                )
            except CreditError as error:
                return _refusal(DeductionResult, error)

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
        return self._answer(
            TransferResult,
            lambda book, now: ledger.transfer(
                book,
                now,
                from_user_id,
                to_user_id,
                amount,
                metadata=metadata,
                min_balance=min_balance,
                idempotency_key=idempotency_key,
            ),
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
        return self._answer(
            RefundResult,
            lambda book, now: ledger.refund(
                book, now, transaction_id, amount, reason, metadata, idempotency_key=idempotency_key
            ),
        )

    async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
        return self._call(lambda book, now: ledger.sweep(book, now, dry_run=dry_run))

    async def get_transaction(self, transaction_id: str) -> Transaction:
        return self._call(lambda book, _: listing.get_transaction(book, transaction_id))

    async def list_transactions(
        self,
        user_id: str | None = None,
        *,
        team_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TransactionPage:
        return self._call(
            lambda book, _: listing.list_transactions(book, user_id, team_id=team_id, cursor=cursor, limit=limit)
        )

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        return self._call(lambda book, _: listing.list_ledger(book, after, start=start, end=end, limit=limit))

    # Reservations

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
        with self._lock:
            try:
                return ledger.reserve(
                    self._book,
                    self._clock(),
                    user_id,
                    amount,
                    operation_type,
                    metadata,
                    min_balance,
                    idempotency_key,
                    ttl_seconds,
                    grace_seconds,
                    model,
                    team_id,
                    overage,
                    max_settle,
                    max_concurrent,
                    feature,
                    pricing_version,
                    fingerprint,
                    attempt_id,
                )
            except CreditError as error:
                return _refusal(ReserveResult, error)

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
        with self._lock:
            try:
                return ledger.deduct(
                    self._book,
                    self._clock(),
                    user_id,
                    reservation_id,
                    amount,
                    idempotency_key,
                    metadata,
                    usage,
                    estimated,
                    model,
                    pricing_version,
                )
            except CreditError as error:
                return _refusal(DeductionResult, error)

    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        return self._answer(ReleaseResult, lambda book, now: ledger.release(book, now, user_id, reservation_id))

    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> RenewResult:
        return self._answer(
            RenewResult, lambda book, now: ledger.renew(book, now, user_id, reservation_id, ttl_seconds)
        )

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        return self._call(lambda book, now: reservations.get_reservation(book, now, user_id, reservation_id))

    async def list_reservations(
        self,
        user_id: str | None = None,
        *,
        states: Sequence[ReservationState] = ("active",),
        cursor: str | None = None,
        limit: int = 50,
    ) -> ReservationPage:
        return self._call(
            lambda book, now: reservations.list_reservations(
                book, now, user_id, states=states, cursor=cursor, limit=limit
            )
        )

    async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
        return self._call(lambda book, now: ledger.reap(book, now, limit=limit))

    async def prune_reservations(self, *, ended_before_days: int = 30, limit: int = 1000) -> int:
        return self._call(lambda book, now: ledger.prune(book, now, ended_before_days=ended_before_days, limit=limit))

    # Pricing

    async def get_active_pricing(self) -> PricingConfigResult | None:
        return self._call(lambda book, _: book.active_pricing)

    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        return self._call(
            lambda book, now: publish.publish(
                book, now, config, label, expected_version=expected_version, idempotency_key=idempotency_key
            )
        )

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        return self._call(lambda book, _: publish.find_pricing(book, version))

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        return self._call(lambda book, _: publish.history(book))

    async def activate_pricing(self, version: int | str) -> str:
        return self._call(lambda book, _: publish.activate(book, version))

    # Plans

    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        return self._call(lambda book, _: plans.list_plans(book, include_dropped=include_dropped))

    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        return self._call(lambda book, _: plans.get_plan(book, user_id))

    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        return self._answer(SetUserPlanResult, lambda book, now: plans.set_plan(book, now, user_id, plan_id))

    async def check_allowance(self, user_id: str) -> AllowanceResult:
        return self._call(lambda book, now: ledger.check_allowance(book, now, user_id))

    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        self._call(
            lambda book, now: ledger.allowance(book, now, user_id, plan_id, amount, idempotency_key=idempotency_key)
        )

    # Caps

    async def check_spend_cap(
        self, user_id: str, model: str | None = None, amount: int | None = None
    ) -> CapCheckResult:
        return self._call(lambda book, now: caps.check_cap(book, now, user_id, model, amount))

    async def set_spend_cap(self, cap: SpendCap) -> None:
        self._call(lambda book, now: caps.set_cap(book, now, cap))

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        return self._call(lambda book, now: caps.remove_cap(book, now, user_id, cap_type, model))

    async def list_spend_caps(self, user_id: str) -> list[SpendCap]:
        return self._call(lambda book, _: caps.list_caps(book, user_id))

    # Analytics

    async def spend_by_user(self, start: datetime, end: datetime) -> Sequence[SpendByUserRow]:
        return self._call(lambda book, _: analytics.spend_by_user(book, start, end))

    async def spend_by_model(self, start: datetime, end: datetime) -> Sequence[SpendByModelRow]:
        return self._call(lambda book, _: analytics.spend_by_model(book, start, end))

    async def top_users(self, limit: int, start: datetime, end: datetime) -> Sequence[TopUserRow]:
        return self._call(lambda book, _: analytics.top_users(book, limit, start, end))

    async def daily_spend(self, start: datetime, end: datetime) -> Sequence[DailySpendRow]:
        return self._call(lambda book, _: analytics.daily_spend(book, start, end))

    async def aggregate_stats(self, start: datetime, end: datetime) -> AggregateStatsRow:
        return self._call(lambda book, _: analytics.aggregate_stats(book, start, end))

    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        check_int(limit, minimum=1, maximum=1_000_000, name="limit")
        return 0

    # Teams

    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        return self._answer(
            CreateTeamResult,
            lambda book, now: teams.create_team(book, now, name, initial_balance, idempotency_key=idempotency_key),
        )

    async def get_team_balance(self, team_id: str) -> TeamBalanceResult:
        return self._call(lambda book, now: teams.team_balance(book, now, team_id))

    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        return self._answer(
            AddTeamMemberResult,
            lambda book, now: teams.add_member(
                book, now, team_id, user_id, role, spend_cap, spend_cap_window=spend_cap_window
            ),
        )

    async def get_team_members(self, team_id: str) -> Sequence[TeamMember]:
        return self._call(lambda book, now: teams.list_members(book, now, team_id))

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
        return self._answer(
            TeamDeductionResult,
            lambda book, now: teams.deduct_team(
                book,
                now,
                team_id,
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
            ),
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
        return self._answer(
            AddCreditsResult,
            lambda book, now: ledger.add(
                book,
                now,
                "team",
                team_id,
                amount,
                type,
                metadata,
                expires_at,
                idempotency_key=idempotency_key,
            ),
        )

    async def set_member_cap(
        self,
        team_id: str,
        user_id: str,
        spend_cap: int | None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        return self._answer(
            AddTeamMemberResult,
            lambda book, now: teams.set_member_cap(
                book, now, team_id, user_id, spend_cap, spend_cap_window=spend_cap_window
            ),
        )

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        return self._call(lambda book, now: teams.remove_member(book, now, team_id, user_id))

    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        return self._answer(DeleteTeamResult, lambda book, now: teams.delete_team(book, now, team_id))
