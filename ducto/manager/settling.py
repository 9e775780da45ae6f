"""The one place where calls are charged and holds are freed: retried, announced, and never lost in silence."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields
from typing import Any

from ducto.errors import AlreadySettledError, CreditError, NotSupportedError, StoreError
from ducto.manager.announcing import Announcer
from ducto.manager.charges import Charge, Settlement
from ducto.manager.journaling import CallJournal, Debt
from ducto.manager.observing import Observers
from ducto.manager.refusals import accepted
from ducto.manager.replaying import ReplayOutcome
from ducto.models import CreditMetadata, DeductionResult, ReleaseResult
from ducto.retrying import PATIENT, PROMPT, RetryPolicy, retried
from ducto.stores.base import CreditStore

__all__ = ["Settler"]

logger: logging.Logger = logging.getLogger("ducto.settling")

#: How long the answer of a call is held for its charge, where the journal has the charge: longer than the store waits
#: for a lock, and less than a person waits for a page.
JOURNALED_SECONDS = 3.0
#: A charge from the journal holds up nobody but others from it.
REPLAY_SECONDS = 15.0


class Settler:
    """Charges and releases. To be run in a supervised task: what is begun here must not end with its caller.

    With a `journal` what a call owes is in it before the store is asked first, and out of it when the store has given
    its final answer. What the store does not answer soon is then left to the journal's replay.
    """

    def __init__(
        self,
        store: CreditStore,
        announcer: Announcer,
        observers: Observers,
        *,
        journal: CallJournal | None = None,
        policy: RetryPolicy = PATIENT,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._observers = observers
        self._journal = journal
        self._policy = policy

    async def settle(self, settlement: Settlement) -> DeductionResult:
        """Deduct. What finally fails is announced as `credits.deduct_failed` and raised; what is left to the journal as
        `credits.settle_deferred`, and raised as a `StoreError` that says so.
        """
        return await self._booked(settlement)

    async def charge(self, charge: Charge) -> DeductionResult:
        """Charge a user, or the pool of his team. As `settle`."""
        return await self._booked(charge)

    async def replay(self, debt: Debt) -> ReplayOutcome:
        """Ask the store once for what was left to the journal. Raises nothing."""
        owed = debt.owed
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                result = await self._asked(owed)
        except AlreadySettledError:
            debt.struck()
            return "booked"
        except (CreditError, NotSupportedError) as error:
            await self._finally_refused(debt, error)
            self._failed(owed, error)
            return "refused"
        except (StoreError, TimeoutError):
            return "kept"
        except Exception:
            logger.exception("A settle from the journal failed, and is tried again.")
            return "kept"
        debt.struck()
        if not result.replayed:
            await self._observers.watched(lambda observer: observer.charge_begins(owed), lambda: _given(result))
        self._announce(owed, result)
        return "booked"

    async def release(self, user_id: str, reservation_id: str, *, team_id: str | None = None) -> ReleaseResult:
        """Free a hold. What finally fails ends by itself when the hold expires."""
        result = await self._observers.watched(
            lambda observer: observer.release_begins(reservation_id),
            lambda: self._freed(user_id, reservation_id),
        )
        if result.released:
            self._announcer.happened("credits.released", result, user_id=user_id, team_id=team_id)
        return result

    async def _freed(self, user_id: str, reservation_id: str) -> ReleaseResult:
        result = await retried(lambda: self._store.release_reservation(user_id, reservation_id), policy=self._policy)
        return accepted(result, "release")

    async def _booked(self, what: Settlement | Charge) -> DeductionResult:
        debt = None if self._journal is None else await self._journal.keep(what)
        try:
            result = await self._observers.watched(
                lambda observer: observer.charge_begins(what), lambda: self._retried(what, journaled=debt is not None)
            )
        except AlreadySettledError:
            if debt is not None:
                debt.struck()
            raise
        except CreditError as error:
            await self._refused(what, debt, error)
            raise
        except asyncio.CancelledError:
            ended = StoreError("The program ended before the store had answered.", retryable=True)
            if debt is not None:  # The next process replays it.
                raise self._deferred(debt, ended) from None
            self._failed(what, ended)
            raise ended from None
        except Exception as error:
            if debt is not None and not isinstance(error, NotSupportedError):
                self._try_later(debt)
                raise self._deferred(debt, error) from error
            if debt is not None:
                await self._finally_refused(debt, error)
            self._failed(what, error)
            raise
        if debt is not None:
            debt.struck()
        self._announce(what, result)
        return result

    async def _retried(self, what: Settlement | Charge, *, journaled: bool) -> DeductionResult:
        if not journaled:
            return await retried(lambda: self._asked(what), policy=self._policy)
        try:
            async with asyncio.timeout(JOURNALED_SECONDS):
                return await retried(lambda: self._asked(what), policy=PROMPT)
        except TimeoutError:
            raise StoreError(f"The store did not answer within {JOURNALED_SECONDS:g} s.", retryable=True) from None

    async def _asked(self, what: Settlement | Charge) -> DeductionResult:
        if isinstance(what, Settlement):
            return await self._deduct(what)
        return await (self._charge_user(what) if what.team_id is None else self._charge_team(what))

    def _announce(self, what: Settlement | Charge, result: DeductionResult) -> None:
        if self._announcer.listening:
            self._announcer.deducted(
                "credits.deducted" if isinstance(what, Settlement) else "credits.charged",
                result,
                user_id=what.user_id,
                team_id=result.team_id or what.team_id,
                more=_context(what),
            )

    async def _refused(self, what: Settlement | Charge, debt: Debt | None, error: CreditError) -> None:
        """The refusal of a charge is its caller's matter; that of a settlement means that work is not paid."""
        if isinstance(what, Charge):
            if debt is not None:
                debt.struck()
            self._announcer.denied(error, user_id=what.user_id, team_id=what.team_id, more=_facts(what))
            return
        if debt is not None:
            await self._finally_refused(debt, error)
        self._failed(what, error)

    async def _finally_refused(self, debt: Debt, error: Exception) -> None:
        assert self._journal is not None
        await self._journal.refused(debt, error)

    def _try_later(self, debt: Debt) -> None:
        assert self._journal is not None
        self._journal.later[debt] = None

    def _deferred(self, debt: Debt, error: Exception) -> StoreError:
        """What to raise for a charge that is made when the store answers again."""
        what = debt.owed
        logger.info("%d credits of user %r are charged from the journal (%s).", what.amount, what.user_id, error)
        self._announcer.settle_deferred(_failure(what, error), user_id=what.user_id, team_id=what.team_id)
        return StoreError(
            f"{error} The charge is in the journal, and is made when the store answers: do not charge for it again.",
            retryable=True,
        )

    def _failed(self, what: Settlement | Charge, error: Exception) -> None:
        facts = _facts(what)
        logger.error(
            "%d credits of user %r could not be charged (%s); charge them by hand: %r",
            what.amount,
            what.user_id,
            error,
            {name: value for name, value in facts.items() if name not in ("metadata", "usage")},
        )
        self._announcer.deduct_failed(_failure(what, error), user_id=what.user_id, team_id=what.team_id)

    async def _deduct(self, one: Settlement) -> DeductionResult:
        result = await self._store.deduct_credits(
            one.user_id,
            one.reservation_id,
            one.amount,
            idempotency_key=one.idempotency_key,
            metadata=one.metadata,
            usage=one.usage,
            estimated=one.estimated,
            model=one.model,
            pricing_version=one.pricing_version,
        )
        return accepted(result, "deduct")

    async def _charge_user(self, one: Charge) -> DeductionResult:
        result = await self._store.charge_credits(
            one.user_id,
            one.amount,
            operation_type=one.operation_type,
            metadata=one.metadata,
            idempotency_key=one.idempotency_key,
            min_balance=one.min_balance,
            force=one.force,
            model=one.model,
            feature=one.feature,
            usage=one.usage,
            estimated=one.estimated,
            pricing_version=one.pricing_version,
        )
        return accepted(result, "charge")

    async def _charge_team(self, one: Charge) -> DeductionResult:
        result = await self._store.deduct_team(
            one.team_id or "",
            one.user_id,
            one.amount,
            one.metadata,
            idempotency_key=one.idempotency_key,
            operation_type=one.operation_type,
            min_balance=one.min_balance,
            force=one.force,
            model=one.model,
            feature=one.feature,
            usage=one.usage,
            estimated=one.estimated,
            pricing_version=one.pricing_version,
        )
        accepted(result, "deduct_team")
        return DeductionResult(
            transaction_id=result.transaction_id,
            user_id=result.user_id,
            team_id=result.team_id,
            amount=result.amount,
            actual=result.amount,
            balance_after=result.balance_after,
            available=result.available,
            replayed=result.replayed,
        )


async def _given(result: DeductionResult) -> DeductionResult:
    return result


def _facts(what: Settlement | Charge) -> dict[str, Any]:
    """All that was asked for, as JSON and without what is empty."""
    facts = {one.name: value for one in fields(what) if (value := getattr(what, one.name)) is not None}
    if what.usage is not None:
        facts["usage"] = what.usage.model_dump(mode="json", exclude_defaults=True)
    if isinstance(what.metadata, CreditMetadata):
        facts["metadata"] = what.metadata.as_dict()
    return facts


def _failure(what: Settlement | Charge, error: Exception) -> dict[str, Any]:
    return {**_facts(what), "error": str(error), "code": getattr(error, "code", type(error).__name__)}


def _context(what: Settlement | Charge) -> dict[str, Any]:
    """What the result of a charge does not say about it; `amount` is left to the result."""
    return {name: value for name, value in _facts(what).items() if name != "amount"}
