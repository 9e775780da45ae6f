"""`ducto teams`: pools of credits that members spend from."""

from __future__ import annotations

from typing import Annotated

import typer

from ducto.cli.credits import expiry
from ducto.cli.options import AmountArgument, ExpiresOption, KeyOption, TeamArgument, UserArgument, group
from ducto.cli.output import fields_table, rows_table
from ducto.cli.running import Books, store_command
from ducto.models import AddType, MemberCapWindow

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    teams = group(app, "teams", help="Teams, their pools and their members.")
    store_command(teams, "create")(_create)
    store_command(teams, "fund")(_fund)
    store_command(teams, "add-member")(_add_member)
    store_command(teams, "members")(_members)


async def _create(
    books: Books,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it; the id is made by the store.")],
    credits: Annotated[int, typer.Option("--credits", help="What its pool begins with.")] = 0,
    key: KeyOption = None,
) -> None:
    """Make a team."""
    books.written(await books.manager.create_team(name, credits, idempotency_key=books.key(key)))


async def _fund(
    books: Books,
    team: TeamArgument,
    credits: AmountArgument,
    type: Annotated[AddType, typer.Option("--type", help="Why they come in.")] = "adjustment",
    expires: ExpiresOption = None,
    key: KeyOption = None,
) -> None:
    """Add credits to a team's pool."""
    used = books.key(key)
    result = await books.manager.add_team_credits(team, credits, type, None, expiry(expires), idempotency_key=used)
    books.written(result)


async def _add_member(
    books: Books,
    team: TeamArgument,
    user: UserArgument,
    role: Annotated[str, typer.Option("--role", help="A word of your own; no rule reads it.")] = "member",
    cap: Annotated[int | None, typer.Option("--cap", metavar="CREDITS", help="The most the member may spend.")] = None,
    cap_window: Annotated[
        MemberCapWindow, typer.Option("--cap-window", help="In all, or in each calendar month (UTC).")
    ] = "lifetime",
) -> None:
    """Add a member, or replace role and cap of one."""
    books.written(await books.manager.add_team_member(team, user, role, cap, spend_cap_window=cap_window))


async def _members(books: Books, team: TeamArgument) -> None:
    """A team's pool and its members."""
    pool = await books.manager.get_team_balance(team)
    members = await books.manager.get_team_members(team)
    columns = ("user_id", "role", "spent", "held", "spend_cap", "spend_cap_window", "joined_at")
    books.out.show(
        {"team": pool, "members": list(members)},
        fields_table(dict(pool)),
        rows_table(members, columns) if members else "It has no members.",
    )
