"""Renew: let the reservation of a call that is still running end later."""

from __future__ import annotations

from datetime import datetime, timedelta

from ducto import arguments
from ducto.errors import (
    AlreadySettledError,
    RenewLimitError,
    ReservationExpiredError,
    ReservationReleasedError,
)
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.holds import locate, owned_hold
from ducto.ledger.reserve import MAX_LIFE, MAX_TTL_SECONDS
from ducto.ledger.state import Book
from ducto.models import RenewResult

__all__ = ["renew"]


def renew(book: Book, clock_now: datetime, user_id: str, reservation_id: str, ttl_seconds: int) -> RenewResult:
    """`expires_at` becomes `max(expires_at, now + ttl)`: never earlier, and never cumulative, so that none drifts."""
    arguments.check_id(user_id)
    arguments.check_int(ttl_seconds, minimum=1, maximum=MAX_TTL_SECONDS, name="ttl_seconds")
    account = locate(book, user_id, reservation_id)
    now = time_for(account, clock_now)
    work = begin(account, now)
    hold = owned_hold(work, user_id, reservation_id)
    if hold.state == "settled":
        raise AlreadySettledError(
            f"The reservation {hold.id} is settled.",
            transaction_id=hold.transaction_id,
            reservation_id=hold.id,
        )
    if hold.state == "released":
        raise ReservationReleasedError(f"The reservation {hold.id} was released.", reservation_id=hold.id)
    if hold.state == "expired" or now >= hold.expires_at:  # The grace is for settling, not for renewing.
        raise ReservationExpiredError(f"The reservation {hold.id} has expired.", reservation_id=hold.id)
    expires_at = max(hold.expires_at, now + timedelta(seconds=ttl_seconds))
    if expires_at > hold.created_at + MAX_LIFE:
        raise RenewLimitError(
            f"The reservation {hold.id} began at {hold.created_at.isoformat()} and may live for 24 hours.",
            reservation_id=hold.id,
        )
    commit(book, work, now)
    hold.expires_at = expires_at
    return RenewResult(reservation_id=hold.id, expires_at=expires_at)
