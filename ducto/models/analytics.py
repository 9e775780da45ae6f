"""Rows of the spend reports. Spend is what was charged, allowance included, at the time of the ledger row, in the
half-open window `[start, end)`; `refunded` is what refunds in the window returned. Team spend counts for the member."""

from __future__ import annotations

from datetime import date

from ducto.models.base import Row

__all__ = ["AggregateStatsRow", "DailySpendRow", "SpendByModelRow", "SpendByUserRow", "TopUserRow"]


class SpendRow(Row):
    total_spend: int = 0
    transaction_count: int = 0
    refunded: int = 0


class SpendByUserRow(SpendRow):
    user_id: str


class TopUserRow(SpendRow):
    user_id: str


class SpendByModelRow(SpendRow):
    """`model` is `None` for spend that named none."""

    model: str | None = None


class DailySpendRow(SpendRow):
    """`day` is a UTC day; days without a movement have no row."""

    day: date


class AggregateStatsRow(SpendRow):
    """`avg_daily_spend` is the total over the UTC days that the window touches, rounded down."""

    active_users: int = 0
    avg_daily_spend: int = 0
    top_model: str | None = None
    top_user: str | None = None
