"""Teams and their members."""

from __future__ import annotations

from collections.abc import Sequence

from ducto import arguments
from ducto.models import (
    AddTeamMemberResult,
    CreateTeamResult,
    DeleteTeamResult,
    MemberCapWindow,
    TeamBalanceResult,
    TeamMember,
)
from ducto.stores.procedures.calling import ProcedureCaller, mint_key, returns_refusals

__all__ = ["TeamProcedures"]


class TeamProcedures(ProcedureCaller):
    """Teams. Their pool is an account: `deduct_team` and `add_team_credits` are where the users' own verbs are."""

    @returns_refusals(CreateTeamResult)
    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        arguments.check_id(name, name="name")
        arguments.check_amount(initial_balance, name="initial_balance")
        arguments.check_key(idempotency_key)
        return await self._outcome(
            CreateTeamResult,
            "ducto_create_team",
            {
                "p_name": name,
                "p_initial_balance": initial_balance,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )

    async def get_team_balance(self, team_id: str) -> TeamBalanceResult:
        arguments.check_id(team_id, name="team_id")
        return await self._read(TeamBalanceResult, "ducto_team_balance", {"p_team_id": team_id})

    @returns_refusals(AddTeamMemberResult)
    async def add_team_member(
        self,
        team_id: str,
        user_id: str,
        role: str = "member",
        spend_cap: int | None = None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        arguments.check_id(user_id)
        arguments.check_id(role, name="role")
        _check_cap(spend_cap, spend_cap_window)
        arguments.check_id(team_id, name="team_id")
        return await self._outcome(
            AddTeamMemberResult,
            "ducto_add_member",
            {
                "p_team_id": team_id,
                "p_user_id": user_id,
                "p_role": role,
                "p_spend_cap": spend_cap,
                "p_spend_cap_window": spend_cap_window,
            },
        )

    @returns_refusals(AddTeamMemberResult)
    async def set_member_cap(
        self,
        team_id: str,
        user_id: str,
        spend_cap: int | None,
        *,
        spend_cap_window: MemberCapWindow = "lifetime",
    ) -> AddTeamMemberResult:
        arguments.check_id(user_id)
        _check_cap(spend_cap, spend_cap_window)
        arguments.check_id(team_id, name="team_id")
        return await self._outcome(
            AddTeamMemberResult,
            "ducto_set_member_cap",
            {
                "p_team_id": team_id,
                "p_user_id": user_id,
                "p_spend_cap": spend_cap,
                "p_spend_cap_window": spend_cap_window,
            },
        )

    async def get_team_members(self, team_id: str) -> Sequence[TeamMember]:
        arguments.check_id(team_id, name="team_id")
        return await self._rows(TeamMember, "ducto_list_members", {"p_team_id": team_id})

    async def remove_team_member(self, team_id: str, user_id: str) -> bool:
        arguments.check_id(user_id)
        arguments.check_id(team_id, name="team_id")
        return bool(await self._value("ducto_remove_member", {"p_team_id": team_id, "p_user_id": user_id}))

    @returns_refusals(DeleteTeamResult)
    async def delete_team(self, team_id: str) -> DeleteTeamResult:
        arguments.check_id(team_id, name="team_id")
        return await self._outcome(DeleteTeamResult, "ducto_delete_team", {"p_team_id": team_id})


def _check_cap(spend_cap: int | None, window: MemberCapWindow) -> None:
    if spend_cap is not None:
        arguments.check_amount(spend_cap, name="spend_cap")
    arguments.check_choice(window, arguments.MEMBER_CAP_WINDOWS, name="spend_cap_window")
