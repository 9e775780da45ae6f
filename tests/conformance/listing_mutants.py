"""Stores that tell or list something wrongly, with one fault each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ducto.stores.memory import MemoryStore

# The overrides take what they do not look at as `*args, **options`: they stand between a check and the real store.


class RowsForgetTheirGrants(MemoryStore):
    async def get_transaction(self, *args: Any, **options: Any) -> Any:
        return (await super().get_transaction(*args, **options)).model_copy(update={"grant_deltas": ()})

    async def list_transactions(self, *args: Any, **options: Any) -> Any:
        page = await super().list_transactions(*args, **options)
        kept = tuple(row.model_copy(update={"grant_deltas": row.grant_deltas[:1]}) for row in page.transactions)
        return page.model_copy(update={"transactions": kept})


class GrantsHaveNoSign(MemoryStore):
    async def list_transactions(self, *args: Any, **options: Any) -> Any:
        page = await super().list_transactions(*args, **options)
        return page.model_copy(update={"transactions": tuple(map(self._unsigned, page.transactions))})

    @staticmethod
    def _unsigned(row: Any) -> Any:
        parts = tuple(part.model_copy(update={"amount": abs(part.amount)}) for part in row.grant_deltas)
        return row.model_copy(update={"grant_deltas": parts})


class RefundsNameTheFirstGrant(MemoryStore):
    async def list_transactions(self, *args: Any, **options: Any) -> Any:
        page = await super().list_transactions(*args, **options)
        return page.model_copy(update={"transactions": tuple(map(self._of_the_first, page.transactions))})

    @staticmethod
    def _of_the_first(row: Any) -> Any:
        if row.type != "refund":
            return row
        parts = tuple(part.model_copy(update={"grant": 1}) for part in row.grant_deltas)
        return row.model_copy(update={"grant_deltas": parts})


class HoldsForgetTheirGrants(MemoryStore):
    async def get_reservation(self, *args: Any, **options: Any) -> Any:
        found = await super().get_reservation(*args, **options)
        return found if found.state == "active" else found.model_copy(update={"grant_holds": ()})


class LedgerLeavesTeamsOut(MemoryStore):
    async def list_ledger(self, *args: Any, **options: Any) -> Any:
        page = await super().list_ledger(*args, **options)
        return page.model_copy(update={"transactions": tuple(row for row in page.transactions if not row.team_id)})


class LedgerEndsWithoutACursor(MemoryStore):
    """Its last page has no cursor, so that whoever goes on later begins anew."""

    async def list_ledger(self, after: str | None = None, **options: Any) -> Any:
        page = await super().list_ledger(after, **options)
        more = await super().list_ledger(page.next_cursor, **options) if page.next_cursor else page
        return page if more.transactions else page.model_copy(update={"next_cursor": None})


class LedgerWindowsAreClosed(MemoryStore):
    async def list_ledger(self, *args: Any, end: datetime | None = None, **options: Any) -> Any:
        later = end and end + timedelta(microseconds=1)
        return await super().list_ledger(*args, end=later, **options)


class LedgerTakesAnyCursor(MemoryStore):
    async def list_ledger(self, after: str | None = None, **options: Any) -> Any:
        return await super().list_ledger(after if after and after.isdecimal() else None, **options)


class RollUpCountsTwice(MemoryStore):
    rolled_up = False

    async def roll_up_spend(self, *, limit: int = 10_000) -> int:
        self.rolled_up = True
        return await super().roll_up_spend(limit=limit)

    async def spend_by_user(self, *args: Any) -> Any:
        found = await super().spend_by_user(*args)
        factor = 2 if self.rolled_up else 1
        return [row.model_copy(update={"total_spend": row.total_spend * factor}) for row in found]


class RollUpTakesAnyLimit(MemoryStore):
    async def roll_up_spend(self, *, limit: Any = 10_000) -> int:
        return await super().roll_up_spend()


class ListsEndedReservations(MemoryStore):
    async def list_reservations(self, *args: Any, **options: Any) -> Any:
        return await super().list_reservations(*args, **{**options, "states": ("active", "settled", "released")})


class ListsNoTeamReservations(MemoryStore):
    async def list_reservations(self, *args: Any, **options: Any) -> Any:
        page = await super().list_reservations(*args, **options)
        return page.model_copy(update={"reservations": tuple(row for row in page.reservations if not row.team_id)})


class ReservationPagesAreByNumber(MemoryStore):
    """Its cursor says how many have been listed, so that one that ends shifts the pages."""

    async def list_reservations(self, *args: Any, cursor: Any = None, limit: Any = 50, **options: Any) -> Any:
        skipped = int(cursor or 0)
        page = await super().list_reservations(*args, limit=1000, **options)
        shown = page.reservations[skipped : skipped + limit]
        following = str(skipped + limit) if len(page.reservations) > skipped + limit else None
        return page.model_copy(update={"reservations": shown, "next_cursor": following})


class ListsOnlyBookedExpiries(MemoryStore):
    """A hold that has ended by itself is taken for open until the reaper has booked its end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reaped: set[str] = set()

    async def reap_expired_reservations(self, **options: Any) -> Any:
        result = await super().reap_expired_reservations(**options)
        self.reaped.update(each.reservation_id for each in result.reservations)
        return result

    async def list_reservations(self, *args: Any, states: Any = ("active",), **options: Any) -> Any:
        page = await super().list_reservations(*args, states=("active", "expired"), **options)
        shown = [
            each if each.reservation_id in self.reaped else each.model_copy(update={"state": "active"})
            for each in page.reservations
        ]
        return page.model_copy(update={"reservations": tuple(each for each in shown if each.state in states)})


class TakesTheLettersOfAState(MemoryStore):
    async def list_reservations(self, *args: Any, states: Any = ("active",), **options: Any) -> Any:
        listed = (states,) if isinstance(states, str) else states
        return await super().list_reservations(*args, states=listed, **options)
