"""From the results of verbs to events. A replay announces nothing, because nothing happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ducto.errors import CapReachedError, CreditError
from ducto.events import EventEmitter, EventName
from ducto.models import CapCheckResult, DeductionResult, Outcome, ReapResult, ReserveResult, SweepResult

__all__ = ["Announcer"]


def as_json(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


class Announcer:
    """Says what happened to whoever listens; works out low balances and overages from the results."""

    def __init__(self, events: EventEmitter, *, low_balance_thresholds: Sequence[int]) -> None:
        self._events = events
        self._thresholds = sorted(set(low_balance_thresholds), reverse=True)

    @property
    def listening(self) -> bool:
        """Does anybody listen to anything? Asked before facts are gathered."""
        return self._events.listening

    def happened(
        self,
        name: EventName,
        result: BaseModel,
        *,
        user_id: str | None = None,
        team_id: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        """`name` with the fields of `result` and `more`, unless `result` is a replay or nobody listens."""
        if isinstance(result, Outcome) and result.replayed:
            return
        if self._events.wants(name):
            data = {**as_json(result), **(more or {})}
            self._events.emit(name, user_id=user_id, team_id=team_id, data=data)

    def reserved(self, result: ReserveResult, *, user_id: str, team_id: str | None, more: dict[str, Any]) -> None:
        if result.replayed:
            return
        self.happened("credits.reserved", result, user_id=user_id, team_id=team_id, more=more)
        self._caps(result.cap_warning, result.cap_notices, user_id=user_id, team_id=team_id)

    def denied(self, error: CreditError, *, user_id: str, team_id: str | None, more: dict[str, Any]) -> None:
        """A reserve or a charge was refused."""
        data = {"code": error.code, "message": error.message, "details": _plain(error.details), **more}
        self._events.emit("credits.denied", user_id=user_id, team_id=team_id, data=data)
        if isinstance(error, CapReachedError):
            self._events.emit("credits.cap_reached", user_id=user_id, team_id=team_id, data=data)

    def deducted(
        self,
        name: EventName,
        result: DeductionResult,
        *,
        user_id: str,
        team_id: str | None,
        more: dict[str, Any],
    ) -> None:
        """A call was charged: `name` is `credits.deducted`, or `credits.charged` without a reservation."""
        if result.replayed:
            return
        self.happened(name, result, user_id=user_id, team_id=team_id, more=more)
        if result.overage > 0:
            self.happened("credits.overage", result, user_id=user_id, team_id=team_id)
        if result.late:
            self.happened("credits.late", result, user_id=user_id, team_id=team_id)
        if result.suspect:
            self.happened("credits.suspect", result, user_id=user_id, team_id=team_id)
        self._caps(result.cap_warning, result.cap_notices, user_id=user_id, team_id=team_id)
        self.moved(user_id=user_id, team_id=team_id, amount=-result.amount, balance_after=result.balance_after)

    def moved(self, *, user_id: str, team_id: str | None, amount: int, balance_after: int) -> None:
        """`amount` (signed) took the balance to `balance_after`: low if that crossed a threshold downwards.

        Crossing is all that counts, so a balance that stays low is reported once, until it has been above
        again.
        """
        before = balance_after - amount
        for threshold in self._thresholds:
            if balance_after < threshold <= before:
                self._events.emit(
                    "credits.low_balance",
                    user_id=user_id,
                    team_id=team_id,
                    data={"threshold": threshold, "balance": balance_after},
                )

    def reaped(self, result: ReapResult) -> None:
        for reservation in result.reservations:
            self.happened(
                "credits.reservation_expired",
                reservation,
                user_id=reservation.user_id,
                team_id=reservation.team_id,
            )

    def swept(self, result: SweepResult) -> None:
        if result.amount > 0 and not result.dry_run:
            self.happened("credits.expired", result)

    def deduct_failed(self, data: dict[str, Any], *, user_id: str, team_id: str | None) -> None:
        self._events.emit("credits.deduct_failed", user_id=user_id, team_id=team_id, data=data)

    def settle_deferred(self, data: dict[str, Any], *, user_id: str, team_id: str | None) -> None:
        self._events.emit("credits.settle_deferred", user_id=user_id, team_id=team_id, data=data)

    def _caps(
        self,
        warning: CapCheckResult | None,
        notices: Sequence[CapCheckResult],
        *,
        user_id: str,
        team_id: str | None,
    ) -> None:
        if warning is not None:
            self.happened("credits.cap_warning", warning, user_id=user_id, team_id=team_id)
        for notice in notices:
            self.happened("credits.cap_notice", notice, user_id=user_id, team_id=team_id)


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    """Details as JSON: the moment that a cap resets is the one value that is not."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in details.items()}
