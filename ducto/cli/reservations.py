"""`ducto reservations`: holds that are open, and ending one by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from ducto.cli.options import UserArgument, group
from ducto.cli.output import Output
from ducto.cli.running import Books, store_command
from ducto.manager import CreditManager
from ducto.models import Reservation

__all__ = ["register"]

_COLUMNS = ("reservation_id", "user_id", "team_id", "amount", "held", "model", "created_at", "expires_at")
_PAGE = 1000


def register(app: typer.Typer) -> None:
    reservations = group(app, "reservations", help="Holds that are open, and ending one by hand.")
    store_command(reservations, "list")(_list)
    store_command(reservations, "release")(_release)


async def _list(
    books: Books, user: Annotated[str | None, typer.Option("--user", help="Of this user alone, in teams too.")] = None
) -> None:
    """The open holds, oldest first."""
    held = await _open_reservations(books.manager, books.out, user_id=user)
    books.out.rows(held, _COLUMNS, empty="No hold is open.")


async def _release(
    books: Books,
    user: UserArgument,
    reservation: Annotated[str, typer.Argument(metavar="RESERVATION", help="Id of the reservation.")],
) -> None:
    """End a hold without a charge. Harmless when repeated; a call that was settled stays charged."""
    result = await books.manager.release(user, reservation)
    text = f"Released: {result.amount:,} credits are free." if result.released else f"It had ended: {result.state}."
    books.out.show(books.document(result), text)


async def _open_reservations(manager: CreditManager, out: Output, *, user_id: str | None) -> list[Reservation]:
    """All pages of them, in the order in which they were made."""
    found: list[Reservation] = []
    cursor: str | None = None
    with out.progress("Reading holds") as advance:
        while True:
            page = await manager.list_reservations(user_id, cursor=cursor, limit=_PAGE)
            found += page.reservations
            advance(len(page.reservations))
            cursor = page.next_cursor
            if cursor is None:
                return sorted(found, key=lambda each: (each.created_at, each.reservation_id))
