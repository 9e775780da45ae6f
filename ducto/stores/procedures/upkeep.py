"""What is done now and then over all accounts: listing holds, sweep, reap, prune, audit; and the probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ducto import arguments
from ducto.models import ReapResult, ReservationPage, ReservationState, SweepResult, VerifyFault, VerifyResult
from ducto.stores.procedures.balances import check_cursor
from ducto.stores.procedures.calling import ProcedureCaller, without_minted_key

__all__ = ["UpkeepProcedures"]

#: How many accounts one call of the audit looks at: each call is one snapshot, and none is a long transaction.
VERIFY_ACCOUNTS = 1000
#: How many accounts one call of the sweep books: it holds their locks until it ends.
SWEEP_ACCOUNTS = 1000


class UpkeepProcedures(ProcedureCaller):
    """Upkeep."""

    async def ping(self) -> None:
        await self._json("ducto_ping", {})

    async def list_reservations(
        self,
        user_id: str | None = None,
        *,
        states: Sequence[ReservationState] = ("active",),
        cursor: str | None = None,
        limit: int = 50,
    ) -> ReservationPage:
        arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
        arguments.check_optional_id(user_id, name="user_id")
        wanted = arguments.check_states(states)
        check_cursor(cursor)
        asked = {"p_user_id": user_id, "p_states": list(wanted), "p_cursor": cursor, "p_limit": limit}
        page = await self._read(ReservationPage, "ducto_list_reservations", asked, long=True)
        return page.model_copy(update={"reservations": tuple(without_minted_key(each) for each in page.reservations)})

    async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
        accounts = grants = amount = 0
        after: str | None = None
        while True:
            found = await self._json(
                "ducto_sweep",
                {"p_dry_run": bool(dry_run), "p_after": after, "p_limit": SWEEP_ACCOUNTS},
                long=True,
            )
            part = self._parsed(SweepResult, "ducto_sweep", found)
            accounts, grants, amount = accounts + part.accounts, grants + part.grants, amount + part.amount
            after = found.get("next")
            if after is None:
                return SweepResult(accounts=accounts, grants=grants, amount=amount, dry_run=bool(dry_run))

    async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
        arguments.check_int(limit, minimum=1, maximum=100_000, name="limit")
        result = await self._read(ReapResult, "ducto_reap", {"p_limit": limit}, long=True)
        return result.model_copy(
            update={"reservations": tuple(without_minted_key(each) for each in result.reservations)}
        )

    async def prune_reservations(self, *, ended_before_days: int = 30, limit: int = 1000) -> int:
        arguments.check_int(ended_before_days, minimum=30, maximum=36_500, name="ended_before_days")
        arguments.check_int(limit, minimum=1, maximum=100_000, name="limit")
        pruned: int = await self._value(
            "ducto_prune", {"p_ended_before_days": ended_before_days, "p_limit": limit}, long=True
        )
        return pruned

    async def verify(self) -> VerifyResult:
        faults: list[VerifyFault] = []
        after_kind: str | None = None
        after_id: str | None = None
        while True:
            found = await self._json(
                "ducto_verify",
                {"p_after_kind": after_kind, "p_after_id": after_id, "p_limit": VERIFY_ACCOUNTS},
                long=True,
            )
            faults += self._faults("ducto_verify", found)
            after_kind, after_id = found.get("next_kind"), found.get("next_id")
            if after_id is None:
                break
        faults += self._faults("ducto_verify_totals", await self._json("ducto_verify_totals", {}, long=True))
        return VerifyResult(ok=not faults, faults=tuple(faults))

    def _faults(self, function: str, answer: Any) -> list[VerifyFault]:
        return [self._parsed(VerifyFault, function, each) for each in self._field(function, answer, "faults")]
