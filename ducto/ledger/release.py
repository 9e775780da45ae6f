"""Release: end a reservation without a charge."""

from __future__ import annotations

from datetime import datetime

from ducto import arguments
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.holds import locate, owned_hold
from ducto.ledger.movement import free_hold, settle_freed
from ducto.ledger.state import Book, Entry
from ducto.models import ReleaseResult

__all__ = ["release"]


def release(book: Book, clock_now: datetime, user_id: str, reservation_id: str) -> ReleaseResult:
    arguments.check_id(user_id)
    account = locate(book, user_id, reservation_id)
    now = time_for(account, clock_now)
    work = begin(account, now)
    hold = owned_hold(work, user_id, reservation_id)
    if hold.state in ("settled", "released"):
        return ReleaseResult(
            reservation_id=hold.id, state=hold.state, transaction_id=hold.transaction_id, available=work.free
        )
    account = commit(book, work, now)
    expired = hold.state == "expired"
    hold.state, hold.ended_at = "released", now
    account.entries.append(
        Entry("credits.released", now, hold.user_id, hold.team_id, 0 if expired else hold.amount, hold.id)
    )
    if not expired:
        free_hold(account, hold)
        settle_freed(account, hold, now)
    return ReleaseResult(
        reservation_id=hold.id,
        released=True,
        state="released",
        amount=0 if expired else hold.amount,
        available=account.free,
    )
