"""`CreditManager`: policy, prices, a store and events, behind every door that meters calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ducto.errors import ArgumentError
from ducto.journal import SettleJournal
from ducto.manager.admission import DEFAULT_MIN_BALANCE, Admissions, with_model
from ducto.manager.charges import Charge, Settlement
from ducto.manager.core import ManagerSettings, key_or_new
from ducto.manager.offline import FailOpen
from ducto.manager.verbs.balances import BalanceVerbs
from ducto.manager.verbs.plans import PlanVerbs
from ducto.manager.verbs.reports import ReportVerbs
from ducto.manager.verbs.teams import TeamVerbs
from ducto.meter import CallTerms, MeteredCall, MissingUsage
from ducto.models import DeductionResult, Metadata, OveragePolicy, ReleaseResult, RenewResult, ReserveResult
from ducto.retrying import BRIEF, retried
from ducto.stores.base import CreditStore
from ducto.usage import UsageMetrics

__all__ = ["CreditManager"]


class CreditManager(Admissions, BalanceVerbs, PlanVerbs, TeamVerbs, ReportVerbs):
    """Meters calls against a store: reserve before, deduct after, exactly once.

    Refusals of the store are raised as typed errors, what happens is emitted as events (`on`), pricing is
    kept fresh. It works on the event loop of its first use, may be shared by all tasks there, and does not
    close the store.
    """

    def __init__(
        self,
        store: CreditStore,
        *,
        pricing_refresh_seconds: float = 0.5,
        plan_refresh_seconds: float = 2.0,
        ttl_seconds: int = 600,
        grace_seconds: int = 60,
        overage: OveragePolicy = "debt",
        missing_usage: MissingUsage = "estimate",
        low_balance_thresholds: Sequence[int] = (),
        maintain_every_seconds: float | None = 60.0,
        drain_seconds: float = 10.0,
        journal: SettleJournal | Path | str | None = "auto",
        fail_open: FailOpen | None = None,
    ) -> None:
        """Put a manager in front of `store`.

        A publish by another process is seen when the store hears of it, and after at most
        `pricing_refresh_seconds`; a user's new plan after at most `plan_refresh_seconds`. `ttl_seconds`,
        `grace_seconds` and `overage` are the defaults of a reservation. `missing_usage` says what a finished
        call without usage is charged: the price of its
        estimate, or all that was reserved. `credits.low_balance` is emitted for each of
        `low_balance_thresholds`. Maintenance runs every `maintain_every_seconds` (`None`: never). `aclose`
        waits up to `drain_seconds` for running settles.

        What a finished call owes is kept in the settle `journal` until the store has answered: in a folder, or as
        `SettleJournal` says, or nowhere (`None`). `"auto"` takes the folder of the environment variable `DUCTO_JOURNAL`
        (`off`: none), else one for this user, where the store's books outlive the process.

        While the store does not answer no call is admitted, or as many metered calls as `fail_open` says, which needs a
        journal: they are charged when it answers, whatever funds and caps say then.

        Raises `ConfigError` for a setting out of range, for a store that lacks methods or keywords, and for a
        journal's folder that was named and cannot be used.
        """
        super().__init__(
            store,
            ManagerSettings(
                pricing_refresh_seconds=pricing_refresh_seconds,
                plan_refresh_seconds=plan_refresh_seconds,
                ttl_seconds=ttl_seconds,
                grace_seconds=grace_seconds,
                overage=overage,
                missing_usage=missing_usage,
                low_balance_thresholds=tuple(low_balance_thresholds),
                maintain_every_seconds=maintain_every_seconds,
                drain_seconds=drain_seconds,
                journal=journal,
                fail_open=fail_open,
            ),
        )

    def meter(
        self,
        user_id: str,
        *,
        estimate: UsageMetrics | int,
        operation_type: str = "call",
        idempotency_key: str | None = None,
        team_id: str | None = None,
        model: str | None = None,
        feature: str | None = None,
        ttl_seconds: int | None = None,
        grace_seconds: int | None = None,
        overage: OveragePolicy | None = None,
        max_settle: int | None = None,
        max_concurrent: int | None = None,
        min_balance: int | None = None,
        fingerprint: str | None = None,
        metadata: Metadata = None,
    ) -> MeteredCall:
        """One metered call: `async with manager.meter(user, estimate=...) as call:`, and `call.record(usage)`
        inside.

        The options are those of `reserve`, but an `idempotency_key` names the *call*: see
        `MeteredCall.start`.
        """
        return MeteredCall(
            self,
            CallTerms(
                user_id=user_id,
                estimate=estimate,
                operation_type=operation_type,
                idempotency_key=idempotency_key,
                team_id=team_id,
                model=model,
                feature=feature,
                ttl_seconds=ttl_seconds,
                grace_seconds=grace_seconds,
                overage=overage,
                max_settle=max_settle,
                max_concurrent=max_concurrent,
                min_balance=min_balance,
                fingerprint=fingerprint,
                metadata=metadata,
            ),
        )

    async def reserve(
        self,
        user_id: str,
        estimate: UsageMetrics | int,
        *,
        operation_type: str = "call",
        idempotency_key: str | None = None,
        team_id: str | None = None,
        model: str | None = None,
        feature: str | None = None,
        ttl_seconds: int | None = None,
        grace_seconds: int | None = None,
        overage: OveragePolicy | None = None,
        max_settle: int | None = None,
        max_concurrent: int | None = None,
        min_balance: int | None = None,
        fingerprint: str | None = None,
        metadata: Metadata = None,
    ) -> ReserveResult:
        """Hold what a call may cost: `estimate` in credits, or usage, which is priced as an upper bound.

        `None` takes the manager's default; `min_balance` the active config's. The hold is not renewed: use
        `meter` for that. Under an `idempotency_key` the same reserve again gets the first answer, `replayed`.
        Events: `credits.reserved`, `.cap_warning`, `.cap_notice`, or `.denied` and `.cap_reached`. Raises the
        typed refusals (`InsufficientCreditsError`, `CapReachedError`, ...), `UnknownModelError`,
        `ConfigError`, `StoreError`.
        """
        call = self.meter(
            user_id,
            estimate=estimate,
            operation_type=operation_type,
            idempotency_key=idempotency_key,
            team_id=team_id,
            model=model,
            feature=feature,
            ttl_seconds=ttl_seconds,
            grace_seconds=grace_seconds,
            overage=overage,
            max_settle=max_settle,
            max_concurrent=max_concurrent,
            min_balance=min_balance,
            fingerprint=fingerprint,
            metadata=metadata,
        )
        return (await self.admit_by_store(call.terms)).result

    async def deduct(
        self,
        user_id: str,
        actual: UsageMetrics | int,
        *,
        reservation_id: str | None = None,
        idempotency_key: str | None = None,
        team_id: str | None = None,
        operation_type: str = "call",
        model: str | None = None,
        metadata: Metadata = None,
        estimated: bool = False,
        feature: str | None = None,
        min_balance: int | None = None,
        force: bool = False,
    ) -> DeductionResult:
        """Charge what a call did cost: `actual` in credits, or usage, which is priced.

        With `reservation_id` it settles that reservation, by the version and plan of its admission, though
        another process made it; the reservation is the key, so repeating it charges once. Without, it charges
        the user, or with `team_id` the team's pool, in one step, leaving at least `min_balance` (default 0)
        unless `force`. Once begun it completes though the caller is cancelled. Events: `credits.deducted` or
        `.charged`, `.overage`, `.late`, `.suspect`, `.low_balance`, caps, or `.deduct_failed`. Raises the
        typed refusals, `PricingError`, and `StoreError` after the last retry.
        """
        if reservation_id is None:
            return await self._charge(
                user_id,
                actual,
                idempotency_key=idempotency_key,
                team_id=team_id,
                operation_type=operation_type,
                model=model,
                metadata=metadata,
                estimated=estimated,
                feature=feature,
                min_balance=min_balance,
                force=force,
            )
        if force or feature is not None or min_balance is not None:
            raise ArgumentError(
                "force, feature and min_balance were decided when the call was reserved; "
                "leave them out, or charge without a reservation."
            )
        known = reservation_id

        async def settle() -> DeductionResult:
            amount, usage = await self._priced_by_reservation(user_id, known, actual)
            result = await self._here().settler.settle(
                Settlement(
                    user_id=user_id,
                    reservation_id=known,
                    amount=amount,
                    team_id=team_id,
                    idempotency_key=idempotency_key,
                    metadata=metadata,
                    usage=usage,
                    estimated=estimated,
                    model=model,
                )
            )
            self._admitted.drop(known)
            return result

        return await self._supervised(settle)

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
        estimated: bool = False,
    ) -> DeductionResult:
        """Charge `amount` credits in one step: `deduct` without a reservation, under the store's name."""
        return await self._charge(
            user_id,
            amount,
            idempotency_key=idempotency_key,
            team_id=None,
            operation_type=operation_type,
            model=model,
            metadata=metadata,
            estimated=estimated,
            feature=feature,
            min_balance=min_balance,
            force=force,
        )

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
        estimated: bool = False,
    ) -> DeductionResult:
        """Charge a team's pool for a member in one step: `deduct` with `team_id`, under the store's name."""
        return await self._charge(
            user_id,
            amount,
            idempotency_key=idempotency_key,
            team_id=team_id,
            operation_type=operation_type,
            model=model,
            metadata=metadata,
            estimated=estimated,
            feature=feature,
            min_balance=min_balance,
            force=force,
        )

    async def release(self, user_id: str, reservation_id: str) -> ReleaseResult:
        """Free a hold without a charge. Safe to repeat: `released` is then false. Event: `credits.released`.

        Once begun it completes though the caller is cancelled. Raises `ReservationNotFoundError`,
        `StoreError`.
        """
        self._admitted.drop(reservation_id)
        return await self._supervised(lambda: self._here().settler.release(user_id, reservation_id))

    async def renew(self, user_id: str, reservation_id: str, *, ttl_seconds: int | None = None) -> RenewResult:
        """Let a hold end `ttl_seconds` from now, never earlier than before. Event: `credits.renewed`.

        Raises `ReservationNotFoundError`, `ReservationExpiredError`, `ReservationReleasedError`,
        `AlreadySettledError`, `RenewLimitError`.
        """
        self._here()
        ttl = self.settings.ttl_seconds if ttl_seconds is None else ttl_seconds
        return await retried(lambda: self._renew_hold(user_id, reservation_id, ttl), policy=BRIEF)

    async def affordable(
        self,
        user_id: str,
        *,
        team_id: str | None = None,
        model: str | None = None,
        min_balance: int | None = None,
    ) -> int:
        """The most credits that a `reserve` would hold now, by balance, allowance and denying caps; 0 if
        none.

        A member's cap in a team, concurrency and features are not looked at.
        """
        return max(0, await self._headroom(user_id, team_id=team_id, model=model, min_balance=min_balance))

    async def can_afford(
        self,
        user_id: str,
        estimate: UsageMetrics | int,
        *,
        team_id: str | None = None,
        model: str | None = None,
        min_balance: int | None = None,
    ) -> bool:
        """Would a `reserve` of `estimate` pass now, by balance, allowance and denying caps? It promises
        nothing.

        Raises `UnknownModelError`, `ConfigError`.
        """
        amount = estimate
        if isinstance(amount, UsageMetrics):
            model = model or amount.model
            pricing = self._here().pricing
            active = await pricing.active()
            plan = await pricing.price_plan(active, user_id)
            amount = active.engine.estimate(with_model(amount, model), plan)
        return amount <= await self._headroom(user_id, team_id=team_id, model=model, min_balance=min_balance)

    async def _headroom(self, user_id: str, *, team_id: str | None, model: str | None, min_balance: int | None) -> int:
        """The largest amount that may be reserved; -1 where even a reservation of 0 would be refused, in
        debt.
        """
        floor = await self._floor(min_balance)
        if team_id is None:
            await self.book_signup_bonus(user_id)
        free = (await self.get_available(user_id, team_id=team_id)).available
        if free < min(0, floor):
            return -1
        if team_id is not None:
            return max(0, free - floor)
        amount = (await self.check_allowance(user_id)).remaining + max(0, free - floor)
        # The store reports one exceeded cap at a time; each round cuts down to the one reported.
        while amount > 0:
            check = await self.check_spend_cap(user_id, model, amount)
            if check.allowed or check.cap is None:
                return amount if check.allowed else 0
            amount = min(amount - 1, check.cap.limit - check.spent - check.held)
        return max(0, amount)

    async def _floor(self, min_balance: int | None) -> int:
        if min_balance is not None:
            return min_balance
        active = await self._here().pricing.active_or_none()
        return active.config.min_balance if active is not None else DEFAULT_MIN_BALANCE

    async def _priced_by_reservation(
        self, user_id: str, reservation_id: str, actual: UsageMetrics | int
    ) -> tuple[int, UsageMetrics | None]:
        if not isinstance(actual, UsageMetrics):
            return actual, None
        engine, plan, model = await self._prices_of_reservation(user_id, reservation_id)
        usage = with_model(actual, model)
        return engine.calculate(usage, plan).total, usage

    async def _charge(
        self,
        user_id: str,
        actual: UsageMetrics | int,
        *,
        idempotency_key: str | None,
        team_id: str | None,
        operation_type: str,
        model: str | None,
        metadata: Metadata,
        estimated: bool,
        feature: str | None,
        min_balance: int | None,
        force: bool,
    ) -> DeductionResult:
        key = key_or_new(idempotency_key)

        async def charge() -> DeductionResult:
            amount, usage, version = await self._priced_now(user_id, actual, model=model)
            if team_id is None:
                await self.book_signup_bonus(user_id)
            return await self._here().settler.charge(
                Charge(
                    user_id=user_id,
                    amount=amount,
                    idempotency_key=key,
                    team_id=team_id,
                    operation_type=operation_type,
                    metadata=metadata,
                    usage=usage,
                    estimated=estimated,
                    model=model or (usage.model if usage is not None else None),
                    feature=feature,
                    pricing_version=version,
                    min_balance=min_balance or 0,
                    force=force,
                )
            )

        return await self._supervised(charge)

    async def _priced_now(
        self, user_id: str, actual: UsageMetrics | int, *, model: str | None
    ) -> tuple[int, UsageMetrics | None, str | None]:
        """Amount, usage to record, and pricing version of a charge by the active config."""
        pricing = self._here().pricing
        if not isinstance(actual, UsageMetrics):
            known = await pricing.active_or_none()
            return actual, None, known.id if known is not None else None
        usage = with_model(actual, model)
        active = await pricing.active()
        plan = await pricing.price_plan(active, user_id)
        return active.engine.calculate(usage, plan).total, usage, active.id
