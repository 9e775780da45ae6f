"""`ducto credits`: what an account has, what comes in and goes out, and what the ledger says."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from ducto.cli import ledger_export
from ducto.cli.options import (
    AmountArgument,
    ExpiresOption,
    KeyOption,
    TeamOption,
    UserArgument,
    group,
)
from ducto.cli.output import as_json, fields_table, rows_table
from ducto.cli.running import Books, store_command
from ducto.cli.times import moment
from ducto.models import AddType

__all__ = ["expiry", "register"]

_COLUMNS = ("transaction_id", "type", "amount", "balance_after", "model", "operation_type", "created_at")


def register(app: typer.Typer) -> None:
    credits = group(app, "credits", help="Balances, movements and the ledger.")
    store_command(credits, "balance")(_balance)
    store_command(credits, "add")(_add)
    store_command(credits, "charge")(_charge)
    store_command(credits, "refund")(_refund)
    store_command(credits, "history")(_history)
    ledger_export.register(credits)


def expiry(text: str | None) -> datetime | None:
    """What `--expires` says."""
    return None if text is None else moment(text, option="--expires")


async def _balance(books: Books, user: UserArgument, team: TeamOption = None) -> None:
    """What a user has: balance, holds, allowance and plan; or what a team's pool has.

    A user that the store has never heard of has 0, as the contract of a store says; a note tells that it is so.
    """
    manager = books.manager
    standing = await manager.get_available(user, team_id=team)
    fields = as_json(standing)
    del fields["stable_until"]  # For caches.
    if team is None:
        allowance = await manager.check_allowance(user)
        fields["lifetime_purchased"] = (await manager.get_balance(user)).lifetime_purchased
        fields["plan_id"] = allowance.plan_id
        fields["allowance"], fields["allowance_remaining"] = allowance.allowance, allowance.remaining
        if not (await manager.list_transactions(user, limit=1)).transactions:
            books.out.note(f"Nothing was ever booked for {user!r}.")
    books.out.show(fields, fields_table({name: value for name, value in fields.items() if value is not None}))


async def _add(
    books: Books,
    user: UserArgument,
    credits: AmountArgument,
    type: Annotated[AddType, typer.Option("--type", help="Why they come in.")] = "adjustment",
    expires: ExpiresOption = None,
    key: KeyOption = None,
) -> None:
    """Add credits to a user. Debt is repaid first. Asks nothing."""
    used = books.key(key)
    result = await books.manager.add_credits(user, credits, type, None, expiry(expires), idempotency_key=used)
    books.written(result)


async def _charge(
    books: Books,
    user: UserArgument,
    credits: AmountArgument,
    team: TeamOption = None,
    model: Annotated[str | None, typer.Option("--model", help="For reports, and for caps on a model.")] = None,
    operation: Annotated[str, typer.Option("--operation", help="What it is for, in the ledger.")] = "charge",
    min_balance: Annotated[int, typer.Option("--min-balance", help="What must be left available.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Book it whatever funds and caps say; may make debt.")] = False,
    key: KeyOption = None,
) -> None:
    """Charge credits in one step, without a reservation."""
    result = await books.manager.deduct(
        user,
        credits,
        team_id=team,
        operation_type=operation,
        model=model,
        min_balance=min_balance,
        force=force,
        idempotency_key=books.key(key),
    )
    books.written(result)


async def _refund(
    books: Books,
    transaction: Annotated[str, typer.Argument(metavar="TRANSACTION", help="Id of the spend to return.")],
    amount: Annotated[
        int | None, typer.Option("--amount", metavar="CREDITS", help="A part of it; by default all that is left.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the refund.")] = None,
    key: KeyOption = None,
) -> None:
    """Return a spend, or a part of it, to the account that paid."""
    result = await books.manager.refund_credits(transaction, amount, reason, idempotency_key=books.key(key))
    books.written(result)


async def _history(
    books: Books,
    user: UserArgument,
    team: TeamOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows of a page.")] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Where the page before ended: its next_cursor.")
    ] = None,
) -> None:
    """The ledger of a user, newest first, a page at a time; with --team the user's rows in the team."""
    page = await books.manager.list_transactions(user, team_id=team, cursor=cursor, limit=limit)
    rows = page.transactions
    books.out.show(page, rows_table(rows, _COLUMNS) if rows else f"Nothing is booked for {user!r}.")
    if page.next_cursor is not None:
        books.out.note(f"There is more: --cursor {page.next_cursor}")
