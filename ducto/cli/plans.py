"""`ducto plans`: the plans of the active pricing config, and who has which."""

from __future__ import annotations

from typing import Annotated

import typer

from ducto.cli.options import UserArgument, group
from ducto.cli.running import Books, store_command
from ducto.errors import ArgumentError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    plans = group(app, "plans", help="The plans of the active pricing config, and who has which.")
    store_command(plans, "list")(_list)
    store_command(plans, "assign")(_assign)


async def _list(
    books: Books,
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Also plans that only earlier configs define, and users may still have.")
    ] = False,
) -> None:
    """The plans."""
    books.out.rows(
        await books.manager.list_plans(include_dropped=dropped),
        ("id", "name", "free_allowance", "features", "max_concurrent"),
        empty="The active pricing config has no plans.",
    )


async def _assign(
    books: Books,
    user: UserArgument,
    plan: Annotated[str | None, typer.Argument(metavar="[PLAN]", help="Id of the plan.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Back to the config's default plan.")] = False,
) -> None:
    """Give a user a plan. What the month has used of the allowance is kept."""
    if (plan is None) != default:
        raise ArgumentError("Name the plan, or give --default in its place.")
    books.written(await books.manager.set_user_plan(user, plan))
