"""The one place where calls are charged and holds are freed: retried, announced, and never lost in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from ducto.errors import AlreadySettledError, CreditError, StoreError
from ducto.manager.announcing import Announcer
from ducto.manager.charges import Charge, Settlement
from ducto.manager.observing import Observers
from ducto.manager.refusals import accepted
from ducto.models import CreditMetadata, DeductionResult, ReleaseResult
from ducto.retrying import PATIENT, RetryPolicy, retried
from ducto.stores.base import CreditStore

__all__ = ["Settler"]

logger: logging.Logger = logging.getLogger("ducto.settling")


class Settler:
    """Charges and releases. To be run in a supervised task: what is begun here must not end with its caller."""

    def __init__(
        self, store: CreditStore, announcer: Announcer, observers: Observers, *, policy: RetryPolicy = PATIENT
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._observers = observers
        self._policy = policy

    async def settle(self, settlement: Settlement) -> DeductionResult:
        """Deduct. What finally fails is announced as `credits.deduct_failed` and raised."""
        result = await self._booked(settlement, lambda: self._deduct(settlement))
        if self._announcer.listening:
            team_id = result.team_id or settlement.team_id
            self._announcer.deducted(
                "credits.deducted",
                result,
                user_id=settlement.user_id,
                team_id=team_id,
                more=_context(settlement),
            )
        return result

    async def charge(self, charge: Charge) -> DeductionResult:
        """Charge a user, or the pool of his team."""
        call = self._charge_user if charge.team_id is None else self._charge_team
        result = await self._booked(charge, lambda: call(charge))
        if self._announcer.listening:
            self._announcer.deducted(
                "credits.charged",
                result,
                user_id=charge.user_id,
                team_id=charge.team_id,
                more=_context(charge),
            )
        return result

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

    async def _booked(
        self, what: Settlement | Charge, call: Callable[[], Awaitable[DeductionResult]]
    ) -> DeductionResult:
        try:
            return await self._observers.watched(
                lambda observer: observer.charge_begins(what), lambda: retried(call, policy=self._policy)
            )
        except AlreadySettledError:
            raise
        except CreditError as error:
            if isinstance(what, Charge):
                self._announcer.denied(error, user_id=what.user_id, team_id=what.team_id, more=_facts(what))
            else:
                self._failed(what, error)
            raise
        except asyncio.CancelledError:
            ended = StoreError("The program ended before the store had answered.", retryable=True)
            self._failed(what, ended)
            raise ended from None
        except Exception as error:
            self._failed(what, error)
            raise

    def _failed(self, what: Settlement | Charge, error: Exception) -> None:
        facts = _facts(what)
        logger.error(
            "%d credits of user %r could not be charged (%s); charge them by hand: %r",
            what.amount,
            what.user_id,
            error,
            {name: value for name, value in facts.items() if name not in ("metadata", "usage")},
        )
        self._announcer.deduct_failed(
            {**facts, "error": str(error), "code": getattr(error, "code", type(error).__name__)},
            user_id=what.user_id,
            team_id=what.team_id,
        )

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


def _facts(what: Settlement | Charge) -> dict[str, Any]:
    """All that was asked for, as JSON and without what is empty."""
    facts = {one.name: value for one in fields(what) if (value := getattr(what, one.name)) is not None}
    if what.usage is not None:
        facts["usage"] = what.usage.model_dump(mode="json", exclude_defaults=True)
    if isinstance(what.metadata, CreditMetadata):
        facts["metadata"] = what.metadata.as_dict()
    return facts


def _context(what: Settlement | Charge) -> dict[str, Any]:
    """What the result of a charge does not say about it; `amount` is left to the result."""
    return {name: value for name, value in _facts(what).items() if name != "amount"}
