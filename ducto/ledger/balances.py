"""Reading balances."""

from __future__ import annotations

from datetime import datetime

from ducto import arguments
from ducto.ledger.due import begin, stable_until, time_for
from ducto.ledger.state import Book
from ducto.ledger.teams import find_team
from ducto.models import AvailableResult, BalanceResult

__all__ = ["get_available", "get_balance"]


def get_balance(book: Book, clock_now: datetime, user_id: str) -> BalanceResult:
    arguments.check_id(user_id)
    account = book.user(user_id)
    work = begin(account, time_for(account, clock_now))
    return BalanceResult(
        user_id=user_id,
        balance=work.balance,
        lifetime_purchased=work.lifetime_purchased,
        stable_until=stable_until(work),
    )


def get_available(book: Book, clock_now: datetime, user_id: str, team_id: str | None) -> AvailableResult:
    arguments.check_id(user_id)
    account = book.user(user_id) if team_id is None else find_team(book, team_id)
    work = begin(account, time_for(account, clock_now))
    return AvailableResult(
        user_id=user_id,
        team_id=team_id,
        balance=work.balance,
        held=work.held,
        available=work.free,
        stable_until=stable_until(work),
    )
