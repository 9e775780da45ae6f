"""Reports over half-open windows `[start, end)` of aware datetimes, the audit, and the state of the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ducto.manager.core import ManagerCore
from ducto.models import (
    AggregateStatsRow,
    DailySpendRow,
    EventPage,
    ReapResult,
    Reservation,
    ReservationPage,
    ReservationState,
    SpendByModelRow,
    SpendByUserRow,
    TopUserRow,
    TransactionPage,
    VerifyResult,
)

__all__ = ["ReportVerbs"]


class ReportVerbs(ManagerCore):
    async def spend_by_user(self, start: datetime, end: datetime) -> Sequence[SpendByUserRow]:
        """Spend of each user (of the member, in a team), by user id."""
        return await self._read(lambda: self.store.spend_by_user(start, end))

    async def spend_by_model(self, start: datetime, end: datetime) -> Sequence[SpendByModelRow]:
        """Spend of each model, by model name, spend without a model last."""
        return await self._read(lambda: self.store.spend_by_model(start, end))

    async def top_users(self, limit: int, start: datetime, end: datetime) -> Sequence[TopUserRow]:
        """The `limit` (1..1000) users that spent most, most first."""
        return await self._read(lambda: self.store.top_users(limit, start, end))

    async def daily_spend(self, start: datetime, end: datetime) -> Sequence[DailySpendRow]:
        """Spend of each UTC day that has any movement, by day."""
        return await self._read(lambda: self.store.daily_spend(start, end))

    async def aggregate_stats(self, start: datetime, end: datetime) -> AggregateStatsRow:
        """The window in one row."""
        return await self._read(lambda: self.store.aggregate_stats(start, end))

    async def verify(self) -> VerifyResult:
        """Audit the books. Reads only; never repairs."""
        return await self._read(self.store.verify)

    async def list_events(self, after: str | None = None, *, limit: int = 100) -> EventPage:
        """What the store recorded after the cursor `after`, oldest first, with ids that never change."""
        return await self._read(lambda: self.store.list_events(after, limit=limit))

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        """Rows of the whole book after the cursor `after`, in the order of `list_events`."""
        return await self._read(lambda: self.store.list_ledger(after, start=start, end=end, limit=limit))

    async def ping(self) -> None:
        """Return when the store answers. Raises `StoreError` at once where it does not."""
        self._here()
        await self.store.ping()

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        """A reservation as it stands. Raises `ReservationNotFoundError`, also for another user's."""
        return await self._read(lambda: self.store.get_reservation(user_id, reservation_id))

    async def list_reservations(
        self,
        user_id: str | None = None,
        *,
        states: Sequence[ReservationState] = ("active",),
        cursor: str | None = None,
        limit: int = 50,
    ) -> ReservationPage:
        """The open reservations, or those in other `states`, by account; with `user_id` those that the user made."""
        return await self._read(
            lambda: self.store.list_reservations(user_id, states=states, cursor=cursor, limit=limit)
        )

    async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
        """End up to `limit` reservations past expiry and grace. Event for each:
        `credits.reservation_expired`.
        """
        result = await self._read(lambda: self.store.reap_expired_reservations(limit=limit))
        self._announcer.reaped(result)
        return result

    async def prune_reservations(self, *, ended_before_days: int = 30, limit: int = 1000) -> int:
        """Forget up to `limit` reservations that ended at least 30 days ago; returns how many."""
        return await self._read(lambda: self.store.prune_reservations(ended_before_days=ended_before_days, limit=limit))

    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        """Add about `limit` ledger rows to the sums that make reports quick; returns how many. Maintenance does it."""
        return await self._read(lambda: self.store.roll_up_spend(limit=limit))
