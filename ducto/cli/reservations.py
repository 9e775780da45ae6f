"""`ducto reservations`: holds that are open, and ending one by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from ducto.cli.options import UserArgument, group
from ducto.cli.output import Output
from ducto.cli.running import Books, store_command
from ducto.errors import ReservationNotFoundError
from ducto.models import Reservation
from ducto.stores.base import CreditStore

__all__ = ["register"]

_COLUMNS = ("reservation_id", "user_id", "team_id", "amount", "held", "model", "created_at", "expires_at")
_PAGE = 1000
#: Events after which a reservation is not open any more.
_ENDS = frozenset({"credits.deducted", "credits.released", "credits.reservation_expired"})


def register(app: typer.Typer) -> None:
    reservations = group(app, "reservations", help="Holds that are open, and ending one by hand.")
    store_command(reservations, "list")(_list)
    store_command(reservations, "release")(_release)


async def _list(
    books: Books, user: Annotated[str | None, typer.Option("--user", help="Of this user alone.")] = None
) -> None:
    """The open holds, oldest first.

    They are found by reading the events of the whole book, so this takes longer the more the store has recorded.
    """
    held = await _open_reservations(books.store, books.out, user_id=user)
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


async def _open_reservations(store: CreditStore, out: Output, *, user_id: str | None) -> list[Reservation]:
    """Those that the events begin and do not end, as far as the store still says that they are active."""
    begun: dict[str, str] = {}
    with out.progress("Reading events") as advance:
        page = await store.list_events(limit=_PAGE)
        while page.events:
            for event in page.events:
                if event.reservation_id is None or event.user_id is None:
                    continue
                if event.name == "credits.reserved" and user_id in (None, event.user_id):
                    begun[event.reservation_id] = event.user_id
                elif event.name in _ENDS:
                    begun.pop(event.reservation_id, None)
            advance(len(page.events))
            page = await store.list_events(page.next_cursor, limit=_PAGE)
    found: list[Reservation] = []
    for reservation_id, owner in begun.items():
        try:
            reservation = await store.get_reservation(owner, reservation_id)
        except ReservationNotFoundError:  # Forgotten since the event was read.
            continue
        # It may have ended since the events were read, also by itself.
        if reservation.state == "active":
            found.append(reservation)
    return found
