"""Admitting a few calls while the store does not answer, if told to: bounded, journaled, charged later."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from ducto.arguments import check_amount, check_id, check_metadata, check_optional_id
from ducto.errors import ConfigError
from ducto.manager.announcing import Announcer
from ducto.manager.charges import Charge
from ducto.manager.journaling import CallJournal, Debt
from ducto.meter import Admission, CallTerms
from ducto.models import DeductionResult, PlanDefinition, ReleaseResult, ReserveResult
from ducto.pricing import PricingEngine
from ducto.usage import UsageMetrics

__all__ = ["FailOpen", "OfflineCalls"]

logger: logging.Logger = logging.getLogger("ducto.manager")

#: Without a bound of its own all users together may have this many times what one may have.
USERS_AT_ONCE = 100
#: As a store bounds what a lying provider may cost: ten times what was reserved, and at least a million credits.
MAX_SETTLE_FACTOR, LEAST_MAX_SETTLE = 10, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOpen:
    """What may be admitted while the store does not answer, in one process: for each user calls whose estimates sum up
    to `credits_per_user`, for all users together `credits_in_all` (default: a hundred times that).

    What was admitted counts until it is charged. Raises `ConfigError` for bounds that are no whole numbers of credits
    above 0.
    """

    credits_per_user: int
    credits_in_all: int | None = None

    def __post_init__(self) -> None:
        for name in ("credits_per_user", "credits_in_all"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number of credits above 0, not {value!r}.")

    @property
    def bound_in_all(self) -> int:
        """What all users together may have."""
        if self.credits_in_all is not None:
            return self.credits_in_all
        return USERS_AT_ONCE * self.credits_per_user


class OfflineCalls:
    """The calls of one manager that were admitted without its store, and what they may still take."""

    def __init__(self, bounds: FailOpen, journal: CallJournal, announcer: Announcer) -> None:
        self._bounds = bounds
        self._journal = journal
        self._announcer = announcer
        self._taken: Counter[str] = Counter()
        self._taken_in_all = 0

    def admit(
        self,
        terms: CallTerms,
        amount: int,
        *,
        engine: PricingEngine | None,
        plan: PlanDefinition | None,
        pricing_version: str | None,
    ) -> Admission | None:
        """Admit a call for `amount` credits if the bounds allow it; `None` where they do not.

        A call with a key of its caller is not admitted: whether it was charged before only the store can tell. Nor is
        one that needs a feature, which only the store knows who has, nor any while the journal cannot be written.
        Raises `ArgumentError`, as the store would.
        """
        check_amount(amount)
        check_id(terms.user_id)
        check_optional_id(terms.team_id, name="team_id")
        check_id(terms.operation_type, name="operation_type")
        check_metadata(terms.metadata)
        if terms.idempotency_key is not None or terms.feature is not None or self._journal.failing:
            return None
        if self._taken.get(terms.user_id, 0) + amount > self._bounds.credits_per_user:
            return None
        if self._taken_in_all + amount > self._bounds.bound_in_all:
            return None
        self._take(terms.user_id, amount)
        result = ReserveResult(
            reservation_id=f"offline_{uuid4().hex}",
            user_id=terms.user_id,
            team_id=terms.team_id,
            amount=amount,
            state="active",
            plan_id=plan.id if plan is not None else None,
            pricing_version=pricing_version,
        )
        self._announcer.happened(
            "credits.admitted_offline",
            result,
            user_id=terms.user_id,
            team_id=terms.team_id,
            more={"operation_type": terms.operation_type, "model": terms.admitted_model},
        )
        return Admission(terms, result, engine, plan, offline=True)

    def release(self, admission: Admission) -> ReleaseResult:
        """The call did nothing: what it took is there again."""
        self._give_back(admission.user_id, admission.result.amount)
        return ReleaseResult(
            reservation_id=admission.reservation_id, released=True, state="released", amount=admission.result.amount
        )

    def charge_for(self, admission: Admission, amount: int, *, usage: UsageMetrics | None, estimated: bool) -> Charge:
        """What a call that cost `amount` owes, cut as a store would cut it."""
        terms = admission.terms
        bound = terms.max_settle
        if bound is None:
            bound = max(MAX_SETTLE_FACTOR * admission.result.amount, LEAST_MAX_SETTLE)
        return Charge(
            user_id=admission.user_id,
            amount=min(amount, bound),
            idempotency_key=admission.reservation_id,
            team_id=terms.team_id,
            operation_type=terms.operation_type,
            metadata=terms.metadata,
            usage=usage,
            estimated=estimated,
            model=admission.model,
            pricing_version=admission.result.pricing_version,
            force=True,
        )

    async def defer(self, admission: Admission, charge: Charge, *, actual: int) -> DeductionResult | None:
        """Put the charge into the journal, to be made when the store answers. The result has no transaction.

        `None` where the journal cannot take it, which it has announced: then the store is to be asked.
        """
        debt = await self._journal.keep(charge)
        if debt is None:
            self._give_back(admission.user_id, admission.result.amount)
            return None
        # What was admitted becomes what is owed, until it is booked.
        self._take(admission.user_id, charge.amount - admission.result.amount)
        self._journal.later[Debt(charge, self._booked(debt.struck, admission.user_id, charge.amount))] = None
        return DeductionResult(
            reservation_id=admission.reservation_id,
            user_id=admission.user_id,
            team_id=charge.team_id,
            amount=charge.amount,
            actual=actual,
            unbilled=actual - charge.amount,
            suspect=charge.amount < actual,
        )

    def _booked(self, struck: Callable[[], None], user_id: str, amount: int) -> Callable[[], None]:
        def booked() -> None:
            struck()
            self._give_back(user_id, amount)

        return booked

    def _take(self, user_id: str, amount: int) -> None:
        self._taken[user_id] += amount
        self._taken_in_all += amount

    def _give_back(self, user_id: str, amount: int) -> None:
        self._taken_in_all -= amount
        self._taken[user_id] -= amount
        if self._taken[user_id] <= 0:  # Ids of users who have nothing are not kept.
            del self._taken[user_id]
