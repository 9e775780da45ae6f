"""Results about teams: a shared pool of credits that members spend from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ducto.models.base import Outcome, Row

__all__ = [
    "AddTeamMemberResult",
    "CreateTeamResult",
    "DeleteTeamResult",
    "MemberCapWindow",
    "TeamBalanceResult",
    "TeamDeductionResult",
    "TeamMember",
]

#: What a member's cap limits: all that the member ever spends, or each calendar month (UTC).
MemberCapWindow = Literal["lifetime", "month"]


class CreateTeamResult(Outcome):
    team_id: str | None = None
    name: str | None = None
    balance: int = 0


class TeamBalanceResult(Row):
    team_id: str
    name: str
    balance: int
    held: int = 0
    available: int = 0
    member_count: int = 0


class TeamMember(Row):
    """`spent` and `held` are those of the cap's window: the lifetime, or the current month."""

    team_id: str
    user_id: str
    role: str = "member"
    spend_cap: int | None = None
    spend_cap_window: MemberCapWindow = "lifetime"
    spent: int = 0
    held: int = 0
    joined_at: datetime


class AddTeamMemberResult(Outcome):
    team_id: str | None = None
    user_id: str | None = None
    role: str | None = None
    spend_cap: int | None = None
    spend_cap_window: MemberCapWindow = "lifetime"


class TeamDeductionResult(Outcome):
    transaction_id: str | None = None
    team_id: str | None = None
    user_id: str | None = None
    amount: int = 0
    balance_after: int = 0
    available: int = 0


class DeleteTeamResult(Outcome):
    team_id: str | None = None
    deleted: bool = False
