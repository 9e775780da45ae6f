"""Teams: members spend from a shared pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ducto.manager.core import ManagerCore, key_or_new
from ducto.manager.refusals import accepted
from ducto.models import (
    AddCreditsResult,
    AddTeamMemberResult,
    AddType,
    CreateTeamResult,
    DeleteTeamResult,
    MemberCapWindow,
    Metadata,
    TeamBalanceResult,
    TeamMember,
)

__all__ = ["TeamVerbs"]


class TeamVerbs(ManagerCore):
    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        """Make a team; its id is minted by the store. Event: `credits.added` for an initial balance.

        Raises `ArgumentError`, `InvalidAmountError`, `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        result = await self._written(
            "create_team", lambda: self.store.create_team(name, initial_balance, idempotency_key=key)
        )
        if result.balance > 0:
            self._announcer.happened("credits.added", result, team_id=result.team_id)
        return result

    async def get_team_balance(self, team_id: str) -> TeamBalanceResult:
        """Raises `TeamNotFoundError`."""
        return await self._read(lambda: self.store.get_team_balance(team_id))

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
        """As `add_credits`, for the team's pool. Event: `credits.added`. Raises besides: `TeamNotFoundError`."""
        key = key_or_new(idempotency_key)
        result = await self._written(
            "add_team_credits",
            lambda: self.store.add_team_credits(team_id, amount, type, metadata, expires_at, idempotency_key=key),
        )
        self._announcer.happened("credits.added", result, team_id=team_id, more={"type": type})
        return result

    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        """Add a member or replace role and cap of one. Raises `TeamNotFoundError`, `ArgumentError`."""
        result = await self._read(
            lambda: self.store.add_team_member(team_id, user_id, role, spend_cap, spend_cap_window=spend_cap_window)
        )
        return accepted(result, "add_team_member")

    async def get_team_members(self, team_id: str) -> Sequence[TeamMember]:
        """The members by user id. Raises `TeamNotFoundError`."""
        return await self._read(lambda: self.store.get_team_members(team_id))

    async def set_member_cap(
        self,
        team_id: str,
        user_id: str,
        spend_cap: int | None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        """Set a member's cap, `None` removes it. Raises `TeamNotFoundError`, `NotAMemberError`."""
        result = await self._read(
            lambda: self.store.set_member_cap(team_id, user_id, spend_cap, spend_cap_window=spend_cap_window)
        )
        return accepted(result, "set_member_cap")

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        """Remove a member; open reservations live on. False where there was none. Raises `TeamNotFoundError`."""
        return await self._read(lambda: self.store.remove_team_member(team_id, user_id))

    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        """Delete an empty team; its ledger stays. Raises `TeamNotFoundError`, `TeamNotEmptyError`."""
        result = await self._read(lambda: self.store.delete_team(team_id))
        return accepted(result, "delete_team")
