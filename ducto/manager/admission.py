"""Admitting calls: price the estimate, book a new user's bonus, reserve, and keep the prices for the charge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import uuid4

from ducto.errors import (
    CreditError,
    DuctoError,
    NotSupportedError,
    PricingError,
    ReservationNotFoundError,
    StoreError,
)
from ducto.manager.charges import Settlement
from ducto.manager.core import ManagerCore, ManagerSettings, OnLoop, key_or_new
from ducto.manager.live_pricing import ActivePricing
from ducto.manager.refusals import accepted
from ducto.meter import Admission, CallTerms, MissingUsage
from ducto.models import DeductionResult, PlanDefinition, ReleaseResult, ReserveResult
from ducto.pricing import PricingEngine
from ducto.recently_used import RecentlyUsed
from ducto.retrying import BRIEF, retried
from ducto.stores.base import CreditStore
from ducto.supervisor import outcome
from ducto.usage import UsageMetrics

__all__ = ["DEFAULT_MIN_BALANCE", "Admissions"]

logger: logging.Logger = logging.getLogger("ducto.manager")

T = TypeVar("T")

#: The floor of a reservation where no pricing config says another.
DEFAULT_MIN_BALANCE = 5
#: Admitted calls whose prices are kept for the `deduct` of this process.
ADMISSIONS_KEPT = 20_000


class Admissions(ManagerCore):
    """What a `MeteredCall` needs (`ducto.meter.CallBooks`)."""

    def __init__(self, store: CreditStore, settings: ManagerSettings) -> None:
        super().__init__(store, settings)
        self._admitted: RecentlyUsed[str, Admission] = RecentlyUsed(ADMISSIONS_KEPT)

    @property
    def missing_usage(self) -> MissingUsage:
        """What a finished call without usable usage is charged."""
        return self.settings.missing_usage

    async def admit(self, terms: CallTerms) -> Admission:
        """Reserve for a call, with the prices that hold for it. The hold of a caller who was cancelled is
        released.

        Where the store does not answer, and the manager is told to fail open, it may be admitted without. Raises the
        typed refusals, `PricingError`, `ConfigError` if no pricing is published, and `StoreError`.
        """
        return await self._admit_watched(terms, self._admit if self._offline is None else self._admit_or_offline)

    async def admit_by_store(self, terms: CallTerms) -> Admission:
        """As `admit`, but never without the store: for a hold that anybody may settle."""
        return await self._admit_watched(terms, self._admit)

    async def _admit_watched(
        self, terms: CallTerms, way: Callable[[OnLoop, CallTerms], Coroutine[Any, Any, Admission]]
    ) -> Admission:
        return await self.observers.watched(
            lambda observer: observer.admission_begins(terms), lambda: self._admit_supervised(terms, way)
        )

    async def _admit_supervised(
        self, terms: CallTerms, way: Callable[[OnLoop, CallTerms], Coroutine[Any, Any, Admission]]
    ) -> Admission:
        here = self._here_to_admit()
        task = here.supervisor.spawn(lambda: way(here, terms))
        try:
            return await outcome(task)
        except asyncio.CancelledError:
            here.supervisor.spawn(lambda: self._release_abandoned(task))
            raise

    def price_of(self, admission: Admission, actual: UsageMetrics | int) -> int:
        """The credits for `actual`, by the version and plan of the admission. Raises `PricingError`."""
        if not isinstance(actual, UsageMetrics):
            return actual
        if admission.engine is None:
            raise PricingError(
                "The call was admitted for an amount of credits before any pricing config was published, "
                "so its usage has no price; settle it with an amount, or publish a config first."
            )
        return admission.engine.calculate(with_model(actual, admission.model), admission.plan).total

    def supervise(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Run `work` in a task of its own that no caller's cancellation reaches, and that `aclose` waits for."""
        return self._here().supervisor.spawn(work)

    def keep_alive(self, admission: Admission) -> Callable[[], None]:
        """Renew the hold at a third of its time to live until the returned function is called."""
        if admission.offline:
            return lambda: None
        return self._here().heartbeat.add(
            admission.user_id,
            admission.reservation_id,
            ttl_seconds=admission.terms.ttl_seconds or self.settings.ttl_seconds,
        )

    async def settle_admitted(
        self, admission: Admission, amount: int, *, usage: UsageMetrics | None, estimated: bool
    ) -> DeductionResult:
        """Charge an admitted call. Raises the typed refusals and `StoreError`."""
        usage = with_model(usage, admission.model) if usage is not None else None
        settler = self._here().settler
        if admission.offline and self._offline is not None:
            charge = self._offline.charge_for(admission, amount, usage=usage, estimated=estimated)
            return await self._offline.defer(admission, charge, actual=amount) or await settler.charge(charge)
        self._admitted.drop(admission.reservation_id)
        return await settler.settle(
            Settlement(
                user_id=admission.user_id,
                reservation_id=admission.reservation_id,
                amount=amount,
                team_id=admission.terms.team_id,
                metadata=admission.terms.metadata,
                usage=usage,
                estimated=estimated,
            )
        )

    async def release_admitted(self, admission: Admission) -> ReleaseResult:
        """Free the hold of an admitted call."""
        if admission.offline and self._offline is not None:
            return self._offline.release(admission)
        self._admitted.drop(admission.reservation_id)
        return await self._here().settler.release(
            admission.user_id, admission.reservation_id, team_id=admission.terms.team_id
        )

    async def transaction_of(self, admission: Admission) -> str | None:
        """The transaction that settled the reservation, `None` where the store cannot tell."""
        try:
            found = await self._read(lambda: self.store.get_reservation(admission.user_id, admission.reservation_id))
        except (NotSupportedError, ReservationNotFoundError):
            return None
        return found.transaction_id

    async def book_signup_bonus(self, user_id: str) -> None:
        """Book the signup bonus the first time that this manager sees the user; the store books it once for
        all.
        """
        here = self._here()
        active = await here.pricing.active_or_none()
        if active is not None and active.config.signup_bonus > 0 and here.seen.get(user_id) is None:
            await self._book_bonus(here, user_id, active.config.signup_bonus)

    async def _book_bonus(self, here: OnLoop, user_id: str, bonus: int) -> None:
        result = await retried(
            lambda: self.store.add_credits(user_id, bonus, "bonus", idempotency_key="signup"), policy=BRIEF
        )
        if result.error is None:
            self._announcer.happened("credits.added", result, user_id=user_id, more={"type": "bonus"})
        elif result.error != "idempotency_mismatch":  # that is a bonus of an earlier config with another amount
            # A user id that is no id is refused by the verb that follows.
            logger.warning("No signup bonus for %r: %s %s", user_id, result.error, result.message or "")
            return
        here.seen.put(user_id, True)

    async def _admit(self, here: OnLoop, terms: CallTerms) -> Admission:
        estimate = terms.estimate
        priced = isinstance(estimate, UsageMetrics)
        active = await here.pricing.active() if priced else await here.pricing.active_or_none()
        plan: PlanDefinition | None = None
        amount: int
        if isinstance(estimate, UsageMetrics):
            assert active is not None
            plan = await here.pricing.price_plan(active, terms.user_id)
            amount = active.engine.estimate(with_model(estimate, terms.model), plan)
        else:
            amount = estimate
        if terms.team_id is None:
            await self.book_signup_bonus(terms.user_id)
        result = await self._reserve(terms, amount, active)
        try:
            admission = await self._admission(here, terms, result, active, plan)
        except BaseException:
            if not result.replayed and result.reservation_id is not None:
                await self._free(terms.user_id, result.reservation_id, terms.team_id)
            raise
        self._admitted.put(admission.reservation_id, admission)
        return admission

    async def _admit_or_offline(self, here: OnLoop, terms: CallTerms) -> Admission:
        try:
            return await self._admit(here, terms)
        except StoreError as error:
            # A lock that is not had in time is a matter of one account, which its owner may bring about.
            found = self._admit_offline(here, terms) if error.retryable and not error.busy else None
            if found is None:
                raise
            return found

    def _admit_offline(self, here: OnLoop, terms: CallTerms) -> Admission | None:
        """By the prices and the plan that were read last; `None` where they are not known, or a bound is reached."""
        if self._offline is None:
            return None
        active, kept = here.pricing.last_read(terms.user_id)
        plan: PlanDefinition | None = None
        if active is not None and active.plans_matter:
            if kept is None:
                return None
            plan = kept.definition()
        if not isinstance(terms.estimate, UsageMetrics):
            amount = terms.estimate
        elif active is None:
            return None
        else:
            amount = active.engine.estimate(with_model(terms.estimate, terms.model), plan)
        return self._offline.admit(
            terms,
            amount,
            engine=active.engine if active is not None else None,
            plan=plan,
            pricing_version=active.id if active is not None else None,
        )

    async def _reserve(self, terms: CallTerms, amount: int, active: ActivePricing | None) -> ReserveResult:
        settings = self.settings
        min_balance = terms.min_balance
        if min_balance is None:
            min_balance = active.config.min_balance if active is not None else DEFAULT_MIN_BALANCE
        key = key_or_new(terms.idempotency_key)
        attempt_id = uuid4().hex
        facts = {"operation_type": terms.operation_type, "model": terms.admitted_model}
        try:
            result = accepted(
                await retried(
                    lambda: self.store.reserve_credits(
                        terms.user_id,
                        amount,
                        terms.operation_type,
                        terms.metadata,
                        min_balance,
                        idempotency_key=key,
                        ttl_seconds=settings.ttl_seconds if terms.ttl_seconds is None else terms.ttl_seconds,
                        grace_seconds=(settings.grace_seconds if terms.grace_seconds is None else terms.grace_seconds),
                        model=terms.admitted_model,
                        team_id=terms.team_id,
                        overage=terms.overage or settings.overage,
                        max_settle=terms.max_settle,
                        max_concurrent=terms.max_concurrent,
                        feature=terms.feature,
                        pricing_version=active.id if active is not None else None,
                        fingerprint=terms.fingerprint,
                        attempt_id=attempt_id,
                    ),
                    policy=BRIEF,
                ),
                "reserve",
            )
        except CreditError as error:
            if self._announcer.listening:
                self._announcer.denied(
                    error, user_id=terms.user_id, team_id=terms.team_id, more={**facts, "amount": amount}
                )
            raise
        if self._announcer.listening:
            self._announcer.reserved(result, user_id=terms.user_id, team_id=terms.team_id, more=facts)
        return result

    async def _admission(
        self,
        here: OnLoop,
        terms: CallTerms,
        result: ReserveResult,
        active: ActivePricing | None,
        plan: PlanDefinition | None,
    ) -> Admission:
        """The admission by the version and plan that the store recorded, which for a replay are the first
        call's.
        """
        version = result.pricing_version or (active.id if active is not None else None)
        if version is None:
            return Admission(terms, result, None, None)
        if active is not None and version == active.id:
            engine, plans_matter = active.engine, active.plans_matter
        else:
            engine, plans_matter = await here.pricing.engine_of(version), True
        if not plans_matter:
            return Admission(terms, result, engine, None)
        if (plan.id if plan is not None else None) != result.plan_id:
            here.pricing.forget_plan(terms.user_id)
            plan = await here.pricing.plan_of_admission(terms.user_id, result.plan_id, engine)
        return Admission(terms, result, engine, plan)

    async def _prices_of_reservation(
        self, user_id: str, reservation_id: str
    ) -> tuple[PricingEngine, PlanDefinition | None, str | None]:
        """Engine, plan and model of a reservation, which another process may have made."""
        pricing = self._here().pricing
        kept = self._admitted.get(reservation_id)
        if kept is not None and kept.user_id == user_id and kept.engine is not None:
            return kept.engine, kept.plan, kept.model
        found = await self._read(lambda: self.store.get_reservation(user_id, reservation_id))
        engine = await pricing.engine_of(found.pricing_version)
        return engine, await pricing.plan_of_admission(user_id, found.plan_id, engine), found.model

    async def _release_abandoned(self, task: asyncio.Task[Admission]) -> None:
        """Free what was reserved for a caller who is gone. A replayed hold is another call's, so it stays."""
        await asyncio.wait((task,))
        if task.cancelled() or task.exception() is not None:
            return
        admission = task.result()
        if admission.offline and self._offline is not None:
            self._offline.release(admission)
        elif not admission.result.replayed:
            await self._free(admission.user_id, admission.reservation_id, admission.terms.team_id)

    async def _free(self, user_id: str, reservation_id: str, team_id: str | None) -> None:
        self._admitted.drop(reservation_id)
        try:
            await self._here().settler.release(user_id, reservation_id, team_id=team_id)
        except DuctoError as error:
            logger.warning("Reservation %s stays held until it expires: %s", reservation_id, error)


def with_model(metrics: UsageMetrics, model: str | None) -> UsageMetrics:
    """`metrics`, with the admitted model where they name none."""
    return metrics if metrics.model is not None or model is None else metrics.model_copy(update={"model": model})
