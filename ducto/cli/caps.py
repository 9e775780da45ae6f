"""`ducto caps`: limits on what a user spends in an hour, a day or a month."""

from __future__ import annotations

from typing import Annotated

import typer

from ducto.cli.options import UserArgument, group
from ducto.cli.running import Books, store_command
from ducto.models import CapAction, CapType, SpendCap

__all__ = ["register"]

WindowOption = Annotated[CapType, typer.Option("--window", help="The calendar window (UTC) that it limits.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="A cap for this model alone.")]


def register(app: typer.Typer) -> None:
    caps = group(app, "caps", help="Spend caps of users.")
    store_command(caps, "set")(_set)
    store_command(caps, "list")(_list)
    store_command(caps, "remove")(_remove)


async def _set(
    books: Books,
    user: UserArgument,
    limit: Annotated[int, typer.Argument(metavar="LIMIT", help="Credits per window; 0 refuses every charge.")],
    window: WindowOption,
    action: Annotated[
        CapAction, typer.Option("--action", help="Refuse, let pass and mark, or only tell by an event.")
    ] = "deny",
    model: ModelOption = None,
) -> None:
    """Set or replace a cap. It counts what its window has already spent."""
    cap = SpendCap(user_id=user, cap_type=window, limit=limit, action=action, model=model)
    await books.manager.set_spend_cap(cap)
    books.out.record(cap)


async def _list(books: Books, user: UserArgument) -> None:
    """The caps of a user."""
    books.out.rows(
        await books.manager.list_spend_caps(user),
        ("cap_type", "limit", "action", "model"),
        empty=f"{user!r} has no caps.",
    )


async def _remove(books: Books, user: UserArgument, window: WindowOption, model: ModelOption = None) -> None:
    """Remove a cap. Exit code 1 where there was none."""
    removed = await books.manager.remove_spend_cap(user, window, model=model)
    of = "" if model is None else f" for {model}"
    books.out.show({"removed": removed}, "Removed." if removed else f"{user!r} has no {window} cap{of}.")
    if not removed:
        raise typer.Exit(1)
