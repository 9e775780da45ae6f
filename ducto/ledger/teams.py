"""Teams: making, filling and deleting them, and who is in them."""

from __future__ import annotations

from datetime import datetime
from typing import cast
from uuid import uuid4

from ducto import arguments
from ducto.errors import NotAMemberError, TeamNotEmptyError, TeamNotFoundError
from ducto.ledger.charge import charge
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import check_same, replayed
from ducto.ledger.movement import Deltas, credit_base, write_row
from ducto.ledger.state import Account, Book, KeyRecord, Member
from ducto.ledger.windows import month_of
from ducto.models import (
    AddTeamMemberResult,
    CreateTeamResult,
    DeleteTeamResult,
    MemberCapWindow,
    Metadata,
    TeamBalanceResult,
    TeamDeductionResult,
    TeamMember,
)
from ducto.usage import UsageMetrics

__all__ = [
    "add_member",
    "create_team",
    "deduct_team",
    "delete_team",
    "find_team",
    "list_members",
    "remove_member",
    "set_member_cap",
    "team_balance",
]


def find_team(book: Book, team_id: str) -> Account:
    arguments.check_id(team_id, name="team_id")
    team = book.team(team_id)
    if team is None:
        raise TeamNotFoundError(f"There is no team {team_id!r}.")
    return team


def create_team(
    book: Book, clock_now: datetime, name: str, initial_balance: int, *, idempotency_key: str | None
) -> CreateTeamResult:
    arguments.check_id(name, name="name")
    arguments.check_amount(initial_balance, name="initial_balance")
    arguments.check_key(idempotency_key)
    compared = (initial_balance, name)
    record = None if idempotency_key is None else book.team_keys.get(idempotency_key)
    if record is not None and idempotency_key is not None:
        check_same("create_team", idempotency_key, record.arguments, compared)
        return replayed(cast(CreateTeamResult, record.reply))

    team = Account("team", f"team_{uuid4().hex}", book.entries, name=name)
    commit(book, team, clock_now)
    if initial_balance:
        deltas = Deltas()
        credit_base(team, initial_balance, deltas)
        write_row(team, deltas, "grant", clock_now, key=idempotency_key)
    reply = CreateTeamResult(team_id=team.id, name=name, balance=initial_balance)
    if idempotency_key is not None:
        book.team_keys[idempotency_key] = KeyRecord(compared, reply)
    return reply


def team_balance(book: Book, clock_now: datetime, team_id: str) -> TeamBalanceResult:
    team = find_team(book, team_id)
    work = begin(team, time_for(team, clock_now))
    return TeamBalanceResult(
        team_id=team_id,
        name=work.name,
        balance=work.balance,
        held=work.held,
        available=work.free,
        member_count=sum(member.is_member for member in work.members.values()),
    )


def add_member(
    book: Book,
    clock_now: datetime,
    team_id: str,
    user_id: str,
    role: str,
    spend_cap: int | None,
    *,
    spend_cap_window: MemberCapWindow,
) -> AddTeamMemberResult:
    """Add a member, or change one. Who comes back finds what was spent before still counted."""
    arguments.check_id(user_id)
    arguments.check_id(role, name="role")
    _check_cap(spend_cap, spend_cap_window)
    team = find_team(book, team_id)
    now = time_for(team, clock_now)
    team = commit(book, begin(team, now), now)
    member = team.members.get(user_id)
    if member is None:
        team.members[user_id] = Member(user_id, role, spend_cap, spend_cap_window, now)
    else:
        if not member.is_member:
            member.is_member, member.joined_at = True, now
        member.role, member.spend_cap, member.spend_cap_window = role, spend_cap, spend_cap_window
    return AddTeamMemberResult(
        team_id=team_id, user_id=user_id, role=role, spend_cap=spend_cap, spend_cap_window=spend_cap_window
    )


def set_member_cap(
    book: Book,
    clock_now: datetime,
    team_id: str,
    user_id: str,
    spend_cap: int | None,
    *,
    spend_cap_window: MemberCapWindow,
) -> AddTeamMemberResult:
    arguments.check_id(user_id)
    _check_cap(spend_cap, spend_cap_window)
    team = find_team(book, team_id)
    current = team.members.get(user_id)
    if current is None or not current.is_member:
        raise NotAMemberError(f"{user_id!r} is not a member of the team {team_id!r}.")
    return add_member(book, clock_now, team_id, user_id, current.role, spend_cap, spend_cap_window=spend_cap_window)


def remove_member(book: Book, clock_now: datetime, team_id: str, user_id: str) -> bool:
    arguments.check_id(user_id)
    team = find_team(book, team_id)
    current = team.members.get(user_id)
    if current is None or not current.is_member:
        return False
    now = time_for(team, clock_now)
    team = commit(book, begin(team, now), now)
    team.members[user_id].is_member = False
    return True


def list_members(book: Book, clock_now: datetime, team_id: str) -> list[TeamMember]:
    team = find_team(book, team_id)
    now = time_for(team, clock_now)
    members = sorted(begin(team, now).members.values(), key=lambda member: member.user_id)
    return [
        TeamMember(
            team_id=team_id,
            user_id=member.user_id,
            role=member.role,
            spend_cap=member.spend_cap,
            spend_cap_window=member.spend_cap_window,
            spent=member.use(month_of(now)).spent,
            held=member.use(month_of(now)).held,
            joined_at=member.joined_at,
        )
        for member in members
        if member.is_member
    ]


def delete_team(book: Book, clock_now: datetime, team_id: str) -> DeleteTeamResult:
    """The ledger of a deleted team stays; its id is never given again."""
    team = find_team(book, team_id)
    now = time_for(team, clock_now)
    work = begin(team, now)
    if work.balance != 0 or work.open:
        raise TeamNotEmptyError(
            f"The team has {work.balance} credits and {len(work.open)} open reservations; settle both first.",
            balance=work.balance,
            held=work.held,
            active=len(work.open),
        )
    commit(book, work, now).deleted = True
    return DeleteTeamResult(team_id=team_id, deleted=True)


def _check_cap(spend_cap: int | None, window: MemberCapWindow) -> None:
    if spend_cap is not None:
        arguments.check_amount(spend_cap, name="spend_cap")
    arguments.check_choice(window, arguments.MEMBER_CAP_WINDOWS, name="spend_cap_window")


def deduct_team(
    book: Book,
    clock_now: datetime,
    team_id: str,
    user_id: str,
    amount: int,
    operation_type: str,
    metadata: Metadata,
    *,
    idempotency_key: str | None,
    min_balance: int,
    force: bool,
    model: str | None,
    feature: str | None,
    usage: UsageMetrics | None,
    estimated: bool,
    pricing_version: str | None,
) -> TeamDeductionResult:
    """A direct charge to the team's pool."""
    arguments.check_id(team_id, name="team_id")
    charged = charge(
        book,
        clock_now,
        user_id,
        amount,
        operation_type,
        metadata,
        team_id=team_id,
        idempotency_key=idempotency_key,
        min_balance=min_balance,
        force=force,
        model=model,
        feature=feature,
        usage=usage,
        estimated=estimated,
        pricing_version=pricing_version,
    )
    return TeamDeductionResult(
        transaction_id=charged.transaction_id,
        team_id=team_id,
        user_id=user_id,
        amount=charged.amount,
        balance_after=charged.balance_after,
        available=charged.available,
        replayed=charged.replayed,
    )
