"""Spend reports over the rows of all accounts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from ducto import arguments
from ducto.ledger.state import Book, Row
from ducto.models import AggregateStatsRow, DailySpendRow, SpendByModelRow, SpendByUserRow, TopUserRow

__all__ = ["aggregate_stats", "daily_spend", "spend_by_model", "spend_by_user", "top_users"]

Key = TypeVar("Key", bound=Any)
SPENDS = ("deduction", "charge", "allowance")


class _Tally:
    __slots__ = ("refunded", "spend", "transactions")

    def __init__(self) -> None:
        self.spend = self.transactions = self.refunded = 0

    def count(self, row: Row) -> None:
        if row.type == "refund":
            self.refunded += row.refunded
        else:
            self.spend += row.charged
            self.transactions += 1

    def fields(self) -> dict[str, int]:
        return {
            "total_spend": self.spend,
            "transaction_count": self.transactions,
            "refunded": self.refunded,
        }


def _rows(book: Book, start: datetime, end: datetime) -> Iterator[Row]:
    for account in book.accounts.values():
        for row in account.rows:
            if start <= row.created_at < end and (row.type in SPENDS or row.type == "refund"):
                yield row


def _tallies(book: Book, start: object, end: object, key: Callable[[Row], Key]) -> dict[Key, _Tally]:
    first, last = arguments.check_window(start, end)
    tallies: dict[Key, _Tally] = defaultdict(_Tally)
    for row in _rows(book, first, last):
        tallies[key(row)].count(row)
    return tallies


def _by_spend(tallies: dict[str, _Tally]) -> list[tuple[str, _Tally]]:
    """Most first, ties by name."""
    return sorted(tallies.items(), key=lambda item: (-item[1].spend, item[0]))


def spend_by_user(book: Book, start: datetime, end: datetime) -> list[SpendByUserRow]:
    tallies = _tallies(book, start, end, lambda row: row.user_id)
    return [SpendByUserRow(user_id=user_id, **tally.fields()) for user_id, tally in sorted(tallies.items())]


def spend_by_model(book: Book, start: datetime, end: datetime) -> list[SpendByModelRow]:
    tallies = _tallies(book, start, end, lambda row: row.model)
    ordered = sorted(tallies.items(), key=lambda item: (item[0] is None, item[0] or ""))
    return [SpendByModelRow(model=model, **tally.fields()) for model, tally in ordered]


def top_users(book: Book, limit: int, start: datetime, end: datetime) -> list[TopUserRow]:
    arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
    tallies = _tallies(book, start, end, lambda row: row.user_id)
    spenders = {user_id: tally for user_id, tally in tallies.items() if tally.transactions}
    return [TopUserRow(user_id=user_id, **tally.fields()) for user_id, tally in _by_spend(spenders)[:limit]]


def daily_spend(book: Book, start: datetime, end: datetime) -> list[DailySpendRow]:
    tallies: dict[date, _Tally] = _tallies(book, start, end, lambda row: row.created_at.date())
    return [DailySpendRow(day=day, **tally.fields()) for day, tally in sorted(tallies.items())]


def aggregate_stats(book: Book, start: datetime, end: datetime) -> AggregateStatsRow:
    users = _tallies(book, start, end, lambda row: row.user_id)
    models = _tallies(book, start, end, lambda row: row.model)
    spenders = {user_id: tally for user_id, tally in users.items() if tally.transactions}
    named = {model: tally for model, tally in models.items() if model is not None and tally.transactions}
    total = sum(tally.spend for tally in users.values())
    first, last = arguments.check_window(start, end)
    days = ((last - timedelta(microseconds=1)).date() - first.date()).days + 1 if first < last else 0
    return AggregateStatsRow(
        total_spend=total,
        transaction_count=sum(tally.transactions for tally in users.values()),
        refunded=sum(tally.refunded for tally in users.values()),
        active_users=len(spenders),
        avg_daily_spend=total // days if days > 0 else 0,
        top_model=next((model for model, _ in _by_spend(named)), None),
        top_user=next((user_id for user_id, _ in _by_spend(spenders)), None),
    )
