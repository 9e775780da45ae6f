"""Expire: the sweep of expired credits, the reaper of expired reservations, and the pruning of ended ones."""

from __future__ import annotations

from datetime import datetime, timedelta

from ducto import arguments
from ducto.ledger.due import begin, book_due, commit, time_for
from ducto.ledger.reservations import described
from ducto.ledger.state import Book
from ducto.models import ReapResult, Reservation, SweepResult

__all__ = ["prune", "reap", "sweep"]


def sweep(book: Book, clock_now: datetime, *, dry_run: bool) -> SweepResult:
    """Book the expiry of every grant that is due; `dry_run` counts without booking."""
    accounts = grants = amount = 0
    for account in list(book.accounts.values()):
        now = time_for(account, clock_now)
        work = begin(account, now)
        expired = [row for row in work.rows if row.type == "expiry"] if work.origin is not None else []
        if not expired:
            continue
        accounts, grants = accounts + 1, grants + len(expired)
        amount -= sum(row.amount for row in expired)
        if not dry_run:
            commit(book, work, now)
    return SweepResult(accounts=accounts, grants=grants, amount=amount, dry_run=dry_run)


def reap(book: Book, clock_now: datetime, *, limit: int) -> ReapResult:
    """Book the end of up to `limit` reservations that are past their grace, an account's earliest first."""
    arguments.check_int(limit, minimum=1, maximum=100_000, name="limit")
    reaped: list[Reservation] = []
    for account in list(book.accounts.values()):
        if len(reaped) == limit:
            break
        now = time_for(account, clock_now)
        if now < account.next_due_at:
            continue
        work = account.fork()
        book_due(work, now, max_holds=limit - len(reaped))
        if work.ended:
            reaped += [described(work, hold) for hold in work.ended.values()]
            commit(book, work, now)
    return ReapResult(
        reaped=len(reaped),
        amount=sum(each.amount for each in reaped),
        reservations=tuple(reaped),
    )


def prune(book: Book, clock_now: datetime, *, ended_before_days: int, limit: int) -> int:
    """Forget reservations that ended long ago, and their reserve keys. The ledger and its keys stay for ever."""
    arguments.check_int(ended_before_days, minimum=30, maximum=36_500, name="ended_before_days")
    arguments.check_int(limit, minimum=1, maximum=100_000, name="limit")
    pruned = 0
    for account in list(book.accounts.values()):
        now = time_for(account, clock_now)
        work = begin(account, now)
        before = now - timedelta(days=ended_before_days)
        # A hold that ended by itself long ago counts, also if nobody has looked at the account since.
        ended = account.ended.values() if work is account else (*account.ended.values(), *work.ended.values())
        old = [hold for hold in ended if hold.ended_at is not None and hold.ended_at <= before][: limit - pruned]
        if not old:
            continue
        commit(book, work, now)
        for hold in old:
            del account.ended[hold.id]
            if hold.key is not None:
                acting = "" if hold.team_id is None else hold.user_id
                account.keys.pop((acting, "reserve", hold.key), None)
            pruned += 1
    return pruned
