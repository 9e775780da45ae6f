"""`ducto usage`: who spent what, on which models, and when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ducto.cli.charts import bar, sparkline
from ducto.cli.options import SinceOption, UntilOption, group
from ducto.cli.output import rows_table
from ducto.cli.running import Books, store_command
from ducto.cli.times import window
from ducto.models import DailySpendRow, SpendByModelRow, SpendByUserRow, TopUserRow

__all__ = ["register"]

_FIGURES = ("total_spend", "transaction_count", "refunded")
#: The widest row of days that is drawn as one line.
_MAX_DAYS = 400


def register(app: typer.Typer) -> None:
    usage = group(app, "usage", help="Who spent what, on which models, and when.")
    store_command(usage, "users")(_users)
    store_command(usage, "models")(_models)
    store_command(usage, "daily")(_daily)
    store_command(usage, "top")(_top)
    store_command(usage, "stats")(_stats)


async def _users(books: Books, since: SinceOption = "30d", until: UntilOption = None) -> None:
    """Spend of each user; in a team, of the member."""
    _chart(books, await books.manager.spend_by_user(*window(since, until)), "user_id")


async def _models(books: Books, since: SinceOption = "30d", until: UntilOption = None) -> None:
    """Spend on each model."""
    _chart(books, await books.manager.spend_by_model(*window(since, until)), "model")


async def _top(
    books: Books,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")] = 10,
    since: SinceOption = "30d",
    until: UntilOption = None,
) -> None:
    """The users that spent most."""
    _chart(books, await books.manager.top_users(limit, *window(since, until)), "user_id")


async def _daily(books: Books, since: SinceOption = "30d", until: UntilOption = None) -> None:
    """Spend of each UTC day. In JSON, days without a movement are left out."""
    start, end = window(since, until)
    rows = await books.manager.daily_spend(start, end)
    days = _every_day(rows, start, end)
    line = sparkline([each.total_spend for each in days]) if len(days) <= _MAX_DAYS else ""
    _chart(books, rows, "day", head=line)


async def _stats(books: Books, since: SinceOption = "30d", until: UntilOption = None) -> None:
    """The window in one record."""
    start, end = window(since, until)
    stats = await books.manager.aggregate_stats(start, end)
    books.out.record({"since": start, "until": end, **dict(stats)})


def _chart(
    books: Books,
    rows: Sequence[SpendByUserRow | SpendByModelRow | DailySpendRow | TopUserRow],
    subject: str,
    *,
    head: str = "",
) -> None:
    """A table with a bar for each row's share of the largest, below the line `head`."""
    if not rows:
        books.out.show([], "Nothing was spent in this window.")
        return
    largest = max(row.total_spend for row in rows)
    lines = [{**dict(row), "share": bar(row.total_spend, largest=largest)} for row in rows]
    table = rows_table(lines, (subject, *_FIGURES, "share"))
    books.out.show(list(rows), *([head] if head else []), table)


def _every_day(rows: Sequence[DailySpendRow], start: datetime, end: datetime) -> list[DailySpendRow]:
    """A row for each UTC day of the window, so that quiet days have their place in a chart."""
    known = {row.day: row for row in rows}
    first = start.astimezone(UTC).date()
    last = (end - timedelta(microseconds=1)).astimezone(UTC).date()
    every = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [known.get(day, DailySpendRow(day=day)) for day in every]
