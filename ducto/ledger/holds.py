"""Finding a reservation by its id, for its owner alone."""

from __future__ import annotations

from ducto import arguments
from ducto.errors import ReservationNotFoundError
from ducto.ledger.ids import account_of
from ducto.ledger.state import Account, Book, Hold

__all__ = ["locate", "owned_hold"]


def _not_found(reservation_id: str) -> ReservationNotFoundError:
    # The same for an unknown id and for somebody else's: the answer tells nobody which ids exist.
    return ReservationNotFoundError(f"There is no reservation {reservation_id!r} of this user.")


def locate(book: Book, user_id: str, reservation_id: object) -> Account:
    """The account that holds the reservation, told by the id alone."""
    own = book.accounts.get(("user", user_id))
    if own is not None and isinstance(reservation_id, str) and reservation_id.startswith(own.prefix):
        return own  # The common case, without decoding the id.
    if not isinstance(reservation_id, str):
        arguments.check_id(reservation_id, name="reservation_id")
    minted = account_of(str(reservation_id))
    account = None if minted is None else book.accounts.get(minted[:2])
    if account is None or (account.kind == "user" and account.id != user_id):
        raise _not_found(str(reservation_id)[:80])
    return account


def owned_hold(work: Account, user_id: str, reservation_id: str) -> Hold:
    hold = work.find_hold(reservation_id)
    if hold is None or hold.user_id != user_id:
        raise _not_found(reservation_id[:80])
    return hold
