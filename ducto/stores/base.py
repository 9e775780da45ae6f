"""`CreditStore`: what every store does, as small interfaces by concern joined in one.

Rules that hold for every method:

- Amounts are `int` credits from 0 to 2^53-1; ids are text of 1..200 bytes of UTF-8, keys of 1..255, compared byte
  by byte. Bad input changes nothing.
- A verb whose result has `error` *returns* its refusals as codes (see `ducto.errors`); a method that returns a list,
  an id or `None` raises `ArgumentError` for bad input and `NotFoundError` for a missing thing. That the store could
  not be reached, or a lock was not had in time, is always raised as `StoreError`.
- A verb with an `idempotency_key` happens once under it: the same call again gets the first answer with
  `replayed=True`, also when both run at the same time; the same key with other arguments is refused as
  `idempotency_mismatch`. Keys are scoped to the account, the acting user and the verb. Refusals are not kept: after
  a top-up the same key may pass. `metadata` is never compared.
- Verbs without a key are idempotent by nature: releasing, renewing, setting a plan, a cap or a member twice leaves
  what once leaves.
- Every answer shows the account as if everything due (expired grants, expired holds) had been booked.
- All time is the store's own; callers pass intervals, and `expires_at` of granted credits.

Third parties write a store by implementing the abstract methods, overriding what else they can do, and running the
checks of `ducto.testing.conformance` against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from ducto.errors import NotSupportedError
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
from ducto.usage import UsageMetrics

__all__ = [
    "AnalyticsStore",
    "BalanceStore",
    "CapStore",
    "CreditStore",
    "PlanStore",
    "PricingStore",
    "ReservationStore",
    "SchemaStore",
    "TeamStore",
]


def _unsupported(store: object, method: str) -> NoReturn:
    raise NotSupportedError(f"{type(store).__name__} does not implement {method}; use a store that does.")


class SchemaStore(ABC):
    """The store as a thing that is set up, probed, audited and closed."""

    @abstractmethod
    async def setup(self, database_url: str | None = None) -> SetupResult:
        """Make the store ready (tables, functions). Idempotent. Stores without a database ignore `database_url`."""

    #: Do the books outlive this process? Then what calls owe is worth a journal.
    durable: bool = False

    @property
    def books_name(self) -> str | None:
        """Which books these are: the same text for every store on them, in every process, and another one for others.

        It is the same before the store is opened, and has no secret in it. `None` where the store cannot tell.
        """
        return None

    async def ping(self) -> None:
        """Return when the store answers; raise `StoreError` where it does not."""
        _unsupported(self, "ping")

    async def verify(self) -> VerifyResult:
        """Audit the books against every invariant. Reads only; never repairs. What is due counts as not yet booked."""
        _unsupported(self, "verify")

    async def list_events(self, after: str | None = None, *, limit: int = 100) -> EventPage:
        """What was recorded after the cursor `after`, oldest first, with ids that never change."""
        _unsupported(self, "list_events")

    async def aclose(self) -> None:
        """Release what the store opened itself. Harmless when repeated."""
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


class BalanceStore(ABC):
    """Credits of an account: what there is, what comes in, what goes back."""

    @abstractmethod
    async def get_balance(self, user_id: str) -> BalanceResult:
        """The balance, held credits included. An unknown user has 0; nothing is created by reading."""

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        """Balance, held and available credits; with `team_id` those of the team's pool."""
        _unsupported(self, "get_available")

    @abstractmethod
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
        """Add `amount` >= 1 credits. Debt is repaid first; with `expires_at` the rest expires then.

        Give the payment's event id as `idempotency_key`: a payment provider delivers events more than once.
        Codes: invalid_argument, invalid_amount, overflow, idempotency_mismatch.
        """

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
        """Correct a balance by hand, `amount` >= 1. A debit leaves at least `min_balance` available unless `force`.

        Codes: invalid_argument, invalid_amount, insufficient_credits, overflow, idempotency_mismatch.
        """
        _unsupported(self, "adjust_credits")

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
        """Reserve and deduct in one step, against what is available, that is without what is held.

        `force` books always (for operators and recovery), may create debt and marks the row as forced.
        Codes: those of `reserve_credits`.
        """
        _unsupported(self, "charge_credits")

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
        """Move `amount` >= 1 available credits between two users: two rows under one transaction id, of sum 0.

        Credits that expire keep their expiry. Codes: as `charge_credits` without caps and plan.
        """
        _unsupported(self, "transfer_credits")

    @abstractmethod
    async def refund_credits(
        self,
        transaction_id: str,
        amount: int | None = None,
        reason: str | None = None,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
    ) -> RefundResult:
        """Return a spend, or `amount` of it, to the account that paid; `None` means what is left of it.

        Money returns first, then allowance (within its month). Credits return to the grants that they came from,
        or to the base where the grant has expired. Caps are not reopened. Without a key a full refund happens once.
        Codes: transaction_not_found, not_refundable, already_refunded, over_refund, invalid_amount, overflow,
        idempotency_mismatch.
        """

    @abstractmethod
    async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
        """Book the expiry of all grants that are due. What a reservation holds of them waits for its end."""

    async def get_transaction(self, transaction_id: str) -> Transaction:
        """One ledger row. Raises `TransactionNotFoundError`."""
        _unsupported(self, "get_transaction")

    async def list_transactions(
        self,
        user_id: str | None = None,
        *,
        team_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TransactionPage:
        """Ledger rows, newest first: the user's own, the team's, or with both the member's rows in the team."""
        _unsupported(self, "list_transactions")

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        """Rows of the whole book after the cursor `after`, in the order of `list_events`, each row once.

        Only rows created in `[start, end)`; a bound that is `None` is open. As with events, a page that has rows has
        a `next_cursor`: who has come to an empty page goes on from the last one later.
        """
        _unsupported(self, "list_ledger")


class ReservationStore(ABC):
    """Holds for running calls."""

    @abstractmethod
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
        """Hold what a call may cost, in full or not at all.

        The month's allowance is held first, the rest of the balance: refused where less than `min_balance` would be
        left available. The hold ends with deduct or release, or by itself `grace_seconds` (0..3600) after
        `ttl_seconds` (1..86400). `max_concurrent` limits the open reservations of the user (of the member, in a
        team); `None` takes the plan's limit. `feature` must be one of the plan's. `max_settle` bounds what a deduct
        may charge (default: 10 times the amount, at least 1,000,000). With `fingerprint` a replay compares it in
        place of the amount. `attempt_id` (as an id, 1..200 bytes, compared with nothing else) names one attempt of
        one caller, its repetitions after a lost reply included: asked again under its key by the attempt that made
        the reservation, the answer is that attempt's own and not `replayed`; for all others it is a replay.
        Codes: invalid_argument, invalid_amount, team_not_found, not_a_member, feature_not_entitled,
        concurrency_limit, cap_reached, member_cap_reached, insufficient_credits, overflow, idempotency_mismatch.
        """

    @abstractmethod
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
        """Settle a reservation with what the call cost; the unused part is freed. Once: the reservation is the key.

        More than reserved is handled by the reservation's overage policy. After expiry and grace the call is still
        charged, as `late`. `amount` 0 frees the hold and keeps a row. Without `model` and `pricing_version` those
        of the reservation are recorded. Codes: reservation_not_found (also for
        another user's), reservation_released, reservation_expired and exceeds_reservation (policy `reject`),
        already_settled, idempotency_mismatch, invalid_amount, overflow.
        """

    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        """End a reservation without a charge. Safe to repeat and in `finally`: `released` is then false."""
        _unsupported(self, "release_reservation")

    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> RenewResult:
        """Let an active reservation end `ttl_seconds` from now, never earlier than before, at most 24 h after it began.

        Codes: reservation_not_found, reservation_expired, reservation_released, already_settled, renew_limit.
        """
        _unsupported(self, "renew_reservation")

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        """A reservation as it stands. Raises `ReservationNotFoundError`, also for another user's."""
        _unsupported(self, "get_reservation")

    async def list_reservations(
        self,
        user_id: str | None = None,
        *,
        states: Sequence[ReservationState] = ("active",),
        cursor: str | None = None,
        limit: int = 50,
    ) -> ReservationPage:
        """Reservations by account, the oldest of an account first: the open ones, or those in other `states`.

        With `user_id` those that the user made, in teams too. One that is past its expiry and grace is expired,
        whether or not anybody has booked that. Ended ones are listed until they are pruned. A page may have fewer
        than `limit` (1..1000), even none, and still a `next_cursor`: the end is where that is `None`.
        """
        _unsupported(self, "list_reservations")

    async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
        """Book the end of up to `limit` reservations that are past expiry and grace. No money moves."""
        _unsupported(self, "reap_expired_reservations")

    async def prune_reservations(self, *, ended_before_days: int = 30, limit: int = 1000) -> int:
        """Forget up to `limit` reservations (and their keys) that ended at least 30 days ago; returns how many."""
        _unsupported(self, "prune_reservations")


class PricingStore(ABC):
    """Versions of the pricing config, of which one is active."""

    @abstractmethod
    async def get_active_pricing(self) -> PricingConfigResult | None:
        """The active config, `None` before the first publish."""

    @abstractmethod
    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Publish `config` as a new version, make it active, return its id.

        With `expected_version` the publish is refused with `VersionConflictError` unless that version is the active
        one (`0`: none is). Raises `PricingConfigError`, `ExpressionError`, `IdempotencyMismatchError`.
        """

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        """A published config by version number or id; `None` where there is none."""
        _unsupported(self, "get_pricing_config")

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        """All versions, newest first, without their configs."""
        _unsupported(self, "get_pricing_history")

    async def activate_pricing(self, version: int | str) -> str:
        """Make an earlier version active again and return its id. Raises `PricingNotFoundError`."""
        _unsupported(self, "activate_pricing")

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        """Call `heard` with the id of each version that anybody publishes or activates, soon after.

        With `None` it says that something may have been missed, so that it is time to look. A hint only, which may
        come late, twice or never: who needs the truth asks `get_active_pricing`. `heard` runs on the event loop and
        must be quick. Returns a function that ends it. Called on a running loop. Not abstract: a store that cannot
        hear never calls.
        """
        return _nothing_to_end


def _nothing_to_end() -> None:
    """Ends a subscription that there is none of."""


class PlanStore(ABC):
    """Plans and the monthly allowance."""

    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        """The plans of the active config by id; `include_dropped` adds those that only earlier configs define."""
        _unsupported(self, "list_plans")

    @abstractmethod
    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        """The plan that holds for the user: the assigned one, else the active config's `default_plan`, else none."""

    @abstractmethod
    async def set_user_plan(self, user_id: str, plan_id: str | None) -> SetUserPlanResult:
        """Assign a plan of the active config (`None`: back to the default). What the month used is kept.

        Code: plan_not_found.
        """

    @abstractmethod
    async def check_allowance(self, user_id: str) -> AllowanceResult:
        """The allowance of the current month."""

    @abstractmethod
    async def increment_usage_window(
        self, user_id: str, plan_id: str, amount: int, *, idempotency_key: str | None = None
    ) -> None:
        """Book `amount` of allowance as used, up to what is left, as a ledger row of amount 0.

        Raises `ArgumentError`, `PlanNotFoundError` where no such plan exists, `IdempotencyMismatchError`.
        """


class CapStore(ABC):
    """Spend caps."""

    @abstractmethod
    async def check_spend_cap(
        self, user_id: str, model: str | None = None, amount: int | None = None
    ) -> CapCheckResult:
        """Would `amount` more (`None`: any credit at all) pass the caps? Counts what is spent and what is held.

        Reports the first cap that is exceeded, model caps before user caps and short windows before long ones,
        denying ones before all others; where none is exceeded, the first in that order.
        """

    async def set_spend_cap(self, cap: SpendCap) -> None:
        """Set or replace the cap for its user, window and model. It counts what its window has already spent."""
        _unsupported(self, "set_spend_cap")

    async def remove_spend_cap(self, user_id: str, cap_type: CapType, *, model: str | None = None) -> bool:
        """Remove a cap; false where there was none."""
        _unsupported(self, "remove_spend_cap")

    async def list_spend_caps(self, user_id: str) -> list[SpendCap]:
        """The user's caps, model caps first, short windows first."""
        _unsupported(self, "list_spend_caps")


class AnalyticsStore(ABC):
    """Spend reports over half-open windows `[start, end)` of aware datetimes."""

    @abstractmethod
    async def spend_by_user(self, start: datetime, end: datetime) -> Sequence[SpendByUserRow]:
        """Spend of each user (of the member, in a team), by user id."""

    @abstractmethod
    async def spend_by_model(self, start: datetime, end: datetime) -> Sequence[SpendByModelRow]:
        """Spend of each model, by model name, spend without a model last."""

    @abstractmethod
    async def top_users(self, limit: int, start: datetime, end: datetime) -> Sequence[TopUserRow]:
        """The `limit` (1..1000) users that spent most, most first, ties by user id."""

    @abstractmethod
    async def daily_spend(self, start: datetime, end: datetime) -> Sequence[DailySpendRow]:
        """Spend of each UTC day that has any movement, by day."""

    @abstractmethod
    async def aggregate_stats(self, start: datetime, end: datetime) -> AggregateStatsRow:
        """The window in one row."""

    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        """Add about `limit` (1..1,000,000) ledger rows to the sums that make reports quick; returns how many rows.

        Fewer than `limit` means that nothing is left, or that somebody else is at it. Reports are exact without it.
        A store that keeps no sums has nothing to do and returns 0.
        """
        _unsupported(self, "roll_up_spend")


class TeamStore(ABC):
    """Teams: members spend from a shared pool; their own balance, caps and allowance stay out of it."""

    @abstractmethod
    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        """Make a team with an id minted by the store; the initial balance is a ledger row like any other.

        Codes: invalid_argument, invalid_amount, idempotency_mismatch.
        """

    @abstractmethod
    async def get_team_balance(self, team_id: str) -> TeamBalanceResult:
        """Raises `TeamNotFoundError`."""

    @abstractmethod
    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        """Add a member or replace role and cap of one. Code: team_not_found."""

    @abstractmethod
    async def get_team_members(self, team_id: str) -> Sequence[TeamMember]:
        """The members by user id. Raises `TeamNotFoundError`."""

    @abstractmethod
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
        """Charge the team's pool for a member, in one step, against what is available.

        Codes: those of `reserve_credits` with a team.
        """

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
        """As `add_credits`, for the team's pool. Code besides: team_not_found."""
        _unsupported(self, "add_team_credits")

    async def set_member_cap(
        self,
        team_id: str,
        user_id: str,
        spend_cap: int | None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        """Set a member's cap, `None` removes it. Codes: team_not_found, not_a_member."""
        _unsupported(self, "set_member_cap")

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        """Remove a member; open reservations live on and settle. False where there was none.

        Raises `TeamNotFoundError`.
        """
        _unsupported(self, "remove_team_member")

    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        """Delete a team that has no credits, no debt and no open reservation; its ledger stays.

        Codes: team_not_found, team_not_empty.
        """
        _unsupported(self, "delete_team")


class CreditStore(
    SchemaStore,
    BalanceStore,
    ReservationStore,
    PricingStore,
    PlanStore,
    CapStore,
    AnalyticsStore,
    TeamStore,
):
    """The whole interface. See the module's text for the rules that hold for all of it."""
