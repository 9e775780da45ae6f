"""What is due: holds past their grace and grants past their expiry.

Every verb begins here. What is due is booked on a working copy, which takes the account's place only if the verb
writes something: reads and refusals show the account as it would be, and leave it as it is. Due things are booked in
the order in which they fell due, so that it makes no difference when anybody looks.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ducto.ledger.cap_counters import current
from ducto.ledger.movement import free_hold, settle_freed, write_expiry
from ducto.ledger.state import FAR, NEVER, Account, Book, Entry, Grant, Hold

__all__ = ["begin", "book_due", "commit", "stable_until", "time_for"]

#: Stands for "never" where an answer says when it may change; unlike `FAR` it survives any time zone.
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)


def time_for(account: Account, now: datetime) -> datetime:
    """The account's own time, which never decreases, whatever the clock does."""
    return now if now > account.last_op_at else account.last_op_at


def begin(account: Account, now: datetime) -> Account:
    """The account with everything due booked: itself where nothing is, else a working copy to be committed."""
    if now < account.next_due_at:
        return account
    account.next_due_at = _next_due(account)
    if now < account.next_due_at:
        return account
    work = account.fork()
    book_due(work, now)
    return work


def commit(book: Book, work: Account, now: datetime) -> Account:
    """Let what the verb wrote stand; the account to go on with. Must come before the verb's own first write."""
    account = work.origin or work
    if work.origin is not None:
        for name in (
            "base",
            "base_held",
            "held",
            "grants",
            "live",
            "open",
            "allowances",
            "caps",
            "members",
            "next_due_at",
        ):
            setattr(account, name, getattr(work, name))
        account.sequence = work.sequence
        account.ended.update(work.ended)
        account.rows.extend(work.rows)
        account.entries.extend(work.entries)
    if account.caps:
        account.caps = [current(counter, now) for counter in account.caps]
    if account.last_op_at is NEVER:  # Its first write.
        book.accounts[account.kind, account.id] = account
    account.last_op_at = now
    return account


def book_due(work: Account, now: datetime, *, max_holds: int | None = None) -> None:
    """Book on `work` what is due at `now`, earliest first; at the same instant holds before grants.

    With `max_holds` it stops after so many holds, and the rest stays due.
    """
    due: list[tuple[datetime, int, Hold | Grant]] = [
        (hold.due_at, 0, hold) for hold in work.open.values() if hold.due_at <= now
    ]
    # Also those that are held whole: a hold that ends here may free them before their turn comes.
    due += [(grant.expires_at, 1, grant) for grant in work.live if grant.expires_at <= now]
    due.sort(key=lambda item: item[:2])
    for at, _, thing in due:
        if len(work.ended) == max_holds:
            break
        if isinstance(thing, Hold):
            _expire_hold(work, thing, at, now)
        elif thing.free > 0:
            write_expiry(work, thing, now)
    work.next_due_at = _next_due(work)


def _expire_hold(work: Account, hold: Hold, at: datetime, now: datetime) -> None:
    hold.state, hold.ended_at = "expired", at
    work.entries.append(Entry("credits.reservation_expired", now, hold.user_id, hold.team_id, hold.amount, hold.id))
    free_hold(work, hold)
    settle_freed(work, hold, now, at=at)


def stable_until(work: Account) -> datetime:
    """Until when nothing of the account changes by itself, at least; `work` has everything due booked."""
    return min(work.next_due_at, _LAST_DAY)


def _next_due(account: Account) -> datetime:
    return min(
        min((hold.due_at for hold in account.open.values()), default=FAR),
        min((grant.expires_at for grant in account.live if grant.free > 0), default=FAR),
    )
