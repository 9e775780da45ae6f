"""Checks of the spend reports: half-open windows, and who and what the spend is attributed to."""

from __future__ import annotations

from datetime import datetime, timedelta

from ducto.errors import ArgumentError
from ducto.testing.conformance.helpers import (
    charge,
    equal,
    expect,
    fields,
    fund,
    hold,
    just_before,
    key,
    known,
    last_row,
    next_day,
    now,
    raises,
    rows,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import FREE, on_plan
from ducto.testing.harness import Harness

_TICK = timedelta(microseconds=1)


async def _quiet_moment(harness: Harness) -> datetime:
    """The start of a window in which no other check has spent anything."""
    await harness.advance(5)
    return await now(harness)


async def check_report_windows_are_half_open(harness: Harness) -> None:
    """A row at `start` is in, a row at `end` is not."""
    store = harness.store
    payer = await fund(store, 100)
    await charge(store, payer, 10)
    moment = (await last_row(store, payer)).created_at
    for start, end, expected in (
        (moment, moment + _TICK, [10]),
        (moment - _TICK, moment, []),
        (moment + _TICK, moment + timedelta(days=1), []),
    ):
        found = [row.total_spend for row in await store.spend_by_user(start, end) if row.user_id == payer]
        equal(found, expected, f"spend in the window from {start - moment} to {end - moment} around the row")


async def check_spend_by_user_counts_charges_and_allowance(harness: Harness) -> None:
    """Spend is what was charged, allowance included; top-ups, transfers and corrections are none."""
    store = harness.store
    start = await _quiet_moment(harness)
    payer, friend = await on_plan(store, FREE, credits=200), user()
    expect(await store.charge_credits(payer, 120), "charge: 100 of allowance and 20 of money")
    reservation_id = await hold(store, payer, 50, overage="clamp")
    expect(await store.deduct_credits(payer, reservation_id, 30), "deduct 30 of 50")
    expect(await store.transfer_credits(payer, friend, 10), "transfer")
    expect(await store.adjust_credits(payer, 5, direction="debit"), "correction")
    await harness.advance(1)
    found = {row.user_id: row for row in await store.spend_by_user(start, await now(harness))}
    fields(
        known(found.get(payer), "row of the payer"),
        {"total_spend": 150, "transaction_count": 2, "refunded": 0},
        "spend of the payer",
    )
    equal(found.get(friend), None, "row of a user who only received credits")


async def check_reports_show_refunds_beside_the_spend(harness: Harness) -> None:
    store = harness.store
    start = await _quiet_moment(harness)
    payer = await fund(store, 200)
    transaction_id = await charge(store, payer, 100)
    expect(await store.refund_credits(transaction_id, 30, idempotency_key=key()), "refund 30")
    await harness.advance(1)
    found = {row.user_id: row for row in await store.spend_by_user(start, await now(harness))}
    fields(found[payer], {"total_spend": 100, "refunded": 30}, "spend with a refund")


async def check_spend_by_model_puts_no_model_last(harness: Harness) -> None:
    store = harness.store
    start = await _quiet_moment(harness)
    payer = await fund(store, 200)
    for model, amount in (("m-2", 1), ("m-1", 10), (None, 5), ("m-2", 2)):
        await charge(store, payer, amount, model=model)
    await harness.advance(1)
    found = await store.spend_by_model(start, await now(harness))
    equal(
        [(row.model, row.total_spend, row.transaction_count) for row in found],
        [("m-1", 10, 1), ("m-2", 3, 2), (None, 5, 1)],
        "spend by model, by name, without a model last",
    )


async def check_top_users_rank_by_spend_then_id(harness: Harness) -> None:
    store = harness.store
    start = await _quiet_moment(harness)
    first, second, third, fourth = sorted(user() for _ in range(4))
    for payer, amount in ((first, 10), (second, 30), (third, 10), (fourth, 5)):
        await fund(store, 100, user_id=payer)
        await charge(store, payer, amount)
    await harness.advance(1)
    end = await now(harness)
    found = [(row.user_id, row.total_spend) for row in await store.top_users(3, start, end)]
    equal(found, [(second, 30), (first, 10), (third, 10)], "top 3 of 4 users")
    for limit in (0, -1, 1001, True, 1.5):
        await raises(ArgumentError, store.top_users(limit, start, end), f"top_users({limit!r})")  # type: ignore[arg-type]


async def check_daily_spend_has_a_row_per_utc_day(harness: Harness) -> None:
    store = harness.store
    midnight = await just_before(harness, next_day)
    start = await now(harness)
    payer = await fund(store, 100)
    await charge(store, payer, 10)
    reservation_id = await hold(store, payer, 50)
    await harness.advance(60)
    expect(await store.deduct_credits(payer, reservation_id, 20), "deduct on the next day")
    await harness.advance(86_400 * 2)
    await charge(store, payer, 3)
    await harness.advance(1)
    found = [(row.day, row.total_spend) for row in await store.daily_spend(start, await now(harness))]
    day = midnight.date()
    equal(
        found,
        [(day - timedelta(days=1), 10), (day, 20), (day + timedelta(days=2), 3)],
        "spend by the UTC day of the ledger row; a day without movement has no row",
    )


async def check_aggregate_stats_sum_up_the_window(harness: Harness) -> None:
    store = harness.store
    midnight = await just_before(harness, next_day)
    await harness.advance(60)
    first, second = await fund(store, 100), await fund(store, 100)
    await charge(store, first, 10, model="m-1")
    await charge(store, second, 21, model="m-2")
    transaction_id = await charge(store, second, 4, model="m-2")
    expect(await store.refund_credits(transaction_id), "refund")
    fields(
        await store.aggregate_stats(midnight, midnight + timedelta(days=2)),
        {
            "total_spend": 35,
            "transaction_count": 3,
            "refunded": 4,
            "active_users": 2,
            "avg_daily_spend": 17,
            "top_model": "m-2",
            "top_user": second,
        },
        "the window of two days in one row",
    )
    empty = await store.aggregate_stats(midnight + timedelta(days=500), midnight + timedelta(days=501))
    fields(
        empty,
        {"total_spend": 0, "active_users": 0, "avg_daily_spend": 0, "top_user": None},
        "an empty window",
    )


async def check_team_spend_counts_for_the_member(harness: Harness) -> None:
    store = harness.store
    start = await _quiet_moment(harness)
    member = user()
    team_id = await team_of(store, member, credits=100)
    expect(await store.deduct_team(team_id, member, 40), "deduct_team")
    await harness.advance(1)
    found = {row.user_id: row.total_spend for row in await store.spend_by_user(start, await now(harness))}
    equal(found, {member: 40}, "spend by user in a window with a team's charge")


async def check_bad_windows_are_refused(harness: Harness) -> None:
    store = harness.store
    moment = await now(harness)
    naive = moment.replace(tzinfo=None)
    for start, end in ((naive, moment), (moment, naive), (moment, moment - _TICK)):
        for call in (store.spend_by_user, store.spend_by_model, store.daily_spend, store.aggregate_stats):
            await raises(ArgumentError, call(start, end), f"{call.__name__}({start!r}, {end!r})")
        await raises(ArgumentError, store.top_users(5, start, end), f"top_users(5, {start!r}, {end!r})")


async def check_transactions_are_listed_page_by_page(harness: Harness) -> None:
    """Newest first, each row once, also when rows are written between two pages."""
    store = harness.store
    payer = await fund(store, 100)
    for _ in range(6):
        await charge(store, payer, 1)
    expected = [row.transaction_id for row in await rows(store, payer)]
    equal(len(expected), 7, "rows of the ledger")
    found: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = await store.list_transactions(payer, cursor=cursor, limit=2)
        found.extend(row.transaction_id for row in page.transactions)
        cursor = page.next_cursor
        if cursor is None:
            break
        await charge(store, payer, 1)
    equal(found, expected, "rows of all pages")
    sequences = [row.sequence for row in await rows(store, payer)]
    equal(sequences, list(range(len(sequences), 0, -1)), "sequence numbers, newest first, without a gap")


async def check_get_transaction_finds_a_row(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 10)
    equal(await store.get_transaction(transaction_id), await last_row(store, payer), "get_transaction")
    await raises(LookupError, store.get_transaction(key("tx")), "get_transaction of an unknown id")


async def check_bad_pages_are_refused(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for limit in (0, -1, True, 1.5):
        await raises(ArgumentError, store.list_transactions(payer, limit=limit), f"limit={limit!r}")  # type: ignore[arg-type]
        await raises(ArgumentError, store.list_events(limit=limit), f"list_events(limit={limit!r})")  # type: ignore[arg-type]
    await raises(ArgumentError, store.list_transactions(payer, cursor="no cursor of ours"), "a cursor that is none")
