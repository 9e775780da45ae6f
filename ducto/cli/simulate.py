"""`ducto simulate`: what past calls would have come to under another pricing config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ducto.cli.options import SinceOption, UntilOption
from ducto.cli.output import fields_table, rows_table
from ducto.cli.running import Books, store_command
from ducto.cli.times import window
from ducto.ledger.windows import month_window
from ducto.models import SpendCap
from ducto.pricing.files import load_pricing_file
from ducto.simulate import Simulation, SimulationResult

__all__ = ["register"]

_FIGURES = ("calls", "refused", "revenue_then", "revenue_now", "change", "charged_then", "charged_now")
_PAGE = 1000
#: More users than these are in `--json` alone; those whose revenue changes most are shown.
_MAX_USERS = 20


def register(app: typer.Typer) -> None:
    store_command(app, "simulate")(_simulate)


async def _simulate(
    books: Books,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The other config: .yaml, .yml or .json.")],
    since: SinceOption = "30d",
    until: UntilOption = None,
) -> None:
    """Replay what was spent under another config: revenue then and now, per model and user, and who would be refused.

    Nothing is written. Calls are priced again from the usage in the ledger; caps are taken as they are set now.
    """
    prices = load_pricing_file(config)
    start, end = window(since, until)
    # The month's beginning tells how much allowance, and how much of a cap, had been used by `since`.
    first = month_window(start)[0]
    users = [row.user_id for row in await books.manager.spend_by_user(first, end)]
    simulation = Simulation(
        prices,
        since=start,
        until=end,
        plans=await books.manager.list_plans(include_dropped=True),
        caps=await _caps(books, users),
    )
    with books.out.progress("Replaying the ledger") as advance:
        page = await books.manager.list_ledger(start=first, end=end, limit=_PAGE)
        while page.transactions:
            for row in page.transactions:
                simulation.add(row)
            advance(len(page.transactions))
            page = await books.manager.list_ledger(page.next_cursor, start=first, end=end, limit=_PAGE)
    result = simulation.result()
    books.out.show(result, *_printed(result))


async def _caps(books: Books, users: list[str]) -> dict[str, list[SpendCap]]:
    found: dict[str, list[SpendCap]] = {}
    with books.out.progress("Reading caps", total=len(users)) as advance:
        for user in users:
            found[user] = await books.manager.list_spend_caps(user)
            advance(1)
    return found


def _printed(result: SimulationResult) -> list[Table | str]:
    if not result.total.calls:
        return ["Nothing was spent in this window."]
    total = {"since": result.since, "until": result.until, **_line(result.total.model_dump())}
    changed = sorted(result.users, key=lambda each: -abs(each.revenue_now - each.revenue_then))
    models = [_line(each.model_dump()) for each in result.models]
    users = [_line(each.model_dump()) for each in changed[:_MAX_USERS]]
    printed: list[Table | str] = [
        fields_table(total),
        rows_table(models, ("model", *_FIGURES), title="By model"),
        rows_table(users, ("user_id", *_FIGURES), title="By user, the largest change first"),
    ]
    if len(changed) > _MAX_USERS:
        printed.append(f"... and {len(changed) - _MAX_USERS} more users (--json shows all)")
    if result.without_usage:
        printed.append(f"{result.without_usage:,} calls recorded no usage; they keep their amount.")
    if result.refusals:
        columns = ("user_id", "team_id", "code", "calls", "first_at", "reason")
        printed.append(rows_table(result.refusals, columns, title="Who would be refused"))
    else:
        printed.append("Nobody would be refused.")
    return printed


def _line(figures: dict[str, object]) -> dict[str, object]:
    """The figures of a comparison, with the change of revenue in percent."""
    then, now = figures["revenue_then"], figures["revenue_now"]
    assert isinstance(then, int)
    assert isinstance(now, int)
    # In whole tenths of a percent, without a float.
    tenths = round((now - then) * 1000 / then) if then else None
    return {**figures, "change": None if tenths is None else f"{tenths / 10:+.1f} %"}
