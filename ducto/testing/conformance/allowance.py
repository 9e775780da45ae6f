"""Checks of the monthly allowance: spent before money, once per account and calendar month."""

from __future__ import annotations

from ducto.errors import PlanNotFoundError
from ducto.models import AllowanceResult
from ducto.testing.conformance.helpers import (
    books,
    ensure,
    equal,
    expect,
    fields,
    fund,
    hold,
    just_before,
    key,
    known,
    last_row,
    next_month,
    raises,
    refused,
    rows,
    user,
)
from ducto.testing.conformance.kit_config import FREE, PRO, SMALL, on_plan, use_kit_config
from ducto.testing.harness import Harness


def _allowance(found: AllowanceResult, what: str, *, used: int, held: int, remaining: int) -> None:
    fields(found, {"used": used, "held": held, "remaining": remaining}, f"allowance {what}")


async def check_allowance_without_a_plan_is_nothing(harness: Harness) -> None:
    await use_kit_config(harness.store)
    found = await harness.store.check_allowance(user())
    fields(
        found,
        {"plan_id": None, "allowance": 0, "used": 0, "held": 0, "remaining": 0},
        "allowance without a plan",
    )
    equal(next_month(found.period_start), found.period_end, "the period is a calendar month in UTC")


async def check_allowance_pays_before_money(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    result = expect(await store.charge_credits(payer, 120), "charge 120: 100 of allowance, 20 of money")
    fields(
        result,
        {"amount": 20, "actual": 120, "allowance_consumed": 100, "unbilled": 0, "balance_after": 30},
        "charge above the allowance",
    )
    fields(
        await last_row(store, payer),
        {"amount": -20, "actual": 120, "charged": 120, "allowance_consumed": 100, "plan_id": FREE},
        "ledger row of a charge above the allowance",
    )
    found = await store.check_allowance(payer)
    fields(found, {"plan_id": FREE, "allowance": 100, "user_id": payer}, "allowance of the plan")
    _allowance(found, "when used up", used=100, held=0, remaining=0)


async def check_reserve_holds_the_allowance_first(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    result = expect(await store.reserve_credits(payer, 120, "chat", min_balance=0), "reserve 120")
    fields(
        result,
        {"amount": 120, "held": 20, "balance": 50, "available": 30, "plan_id": FREE},
        "reserve above allowance",
    )
    reservation_id = known(result.reservation_id, "reservation_id")
    fields(
        await store.get_reservation(payer, reservation_id),
        {"held": 20, "allowance_held": 100},
        "the reservation",
    )
    _allowance(await store.check_allowance(payer), "held", used=0, held=100, remaining=0)
    expect(await store.release_reservation(payer, reservation_id), "release")
    _allowance(await store.check_allowance(payer), "after release", used=0, held=0, remaining=100)
    await books(store, payer, "after release", balance=50)


async def check_deduct_uses_the_allowance_first(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    reservation_id = await hold(store, payer, 120)
    result = expect(await store.deduct_credits(payer, reservation_id, 60), "deduct 60 of 120")
    fields(result, {"amount": 0, "allowance_consumed": 60, "balance_after": 50, "actual": 60}, "deduct 60 of 120")
    _allowance(await store.check_allowance(payer), "after a deduct", used=60, held=0, remaining=40)
    await books(store, payer, "the money was not touched", balance=50)


async def check_overage_takes_what_is_left_of_the_allowance(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    reservation_id = await hold(store, payer, 50)
    result = expect(await store.deduct_credits(payer, reservation_id, 130), "deduct 130 of 50")
    fields(
        result,
        {"amount": 30, "allowance_consumed": 100, "unbilled": 0, "overage": 80, "balance_after": 20},
        "overage beyond the allowance",
    )


async def check_allowance_covers_a_user_without_credits(harness: Harness) -> None:
    """Where the allowance covers all, only real debt refuses: `free >= min(0, min_balance)`."""
    store = harness.store
    payer = await on_plan(store, FREE)
    result = expect(await store.reserve_credits(payer, 100, "chat", min_balance=5), "reserve all of the allowance")
    fields(result, {"held": 0, "available": 0}, "reserve covered by the allowance")
    refused(
        await store.reserve_credits(payer, 1, "chat", min_balance=5),
        "insufficient_credits",
        "one more credit",
    )


async def check_allowance_does_not_serve_a_debtor(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    expect(await store.charge_credits(payer, 110, force=True), "forced charge: all allowance and 10 of debt")
    await harness.advance(32 * 86_400)
    equal((await store.check_allowance(payer)).remaining, 100, "allowance of the next month")
    refused(
        await store.reserve_credits(payer, 50, "chat", min_balance=5),
        "insufficient_credits",
        "reserve in debt of 10",
    )
    refused(
        await store.reserve_credits(payer, 50, "chat", min_balance=-9),
        "insufficient_credits",
        "reserve below -9",
    )
    expect(await store.reserve_credits(payer, 50, "chat", min_balance=-10), "reserve exactly at floor -10")


async def check_partly_covered_reserve_keeps_the_floor(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=10)
    refused(
        await store.reserve_credits(payer, 106, "chat", min_balance=5),
        "insufficient_credits",
        "6 of money beside the allowance, 10 there and floor 5",
    )
    result = expect(await store.reserve_credits(payer, 105, "chat", min_balance=5), "5 of money: exactly to the floor")
    fields(result, {"held": 5, "available": 5}, "reserve of allowance and money")


async def check_month_starts_with_a_fresh_allowance(harness: Harness) -> None:
    store = harness.store
    end = await just_before(harness, next_month)
    payer = await on_plan(store, FREE)
    expect(await store.charge_credits(payer, 100), "using up the month")
    found = await store.check_allowance(payer)
    equal(found.period_end, end, "end of the period")
    await harness.advance(60)
    found = await store.check_allowance(payer)
    equal(found.period_start, end, "start of the next period")
    _allowance(found, "of the next month", used=0, held=0, remaining=100)


async def check_deduct_books_in_the_month_of_the_reserve(harness: Harness) -> None:
    """The month changes between reserve and deduct: the new month's allowance is untouched."""
    store = harness.store
    end = await just_before(harness, next_month)
    payer = await on_plan(store, FREE, credits=100)
    reservation_id = await hold(store, payer, 60)
    await harness.advance(60)
    _allowance(await store.check_allowance(payer), "of the new month, before", used=0, held=0, remaining=100)
    result = expect(await store.deduct_credits(payer, reservation_id, 130), "deduct in the new month")
    fields(result, {"allowance_consumed": 100, "amount": 30}, "deduct from the old month's allowance")
    _allowance(await store.check_allowance(payer), "of the new month, after", used=0, held=0, remaining=100)
    row = await last_row(store, payer)
    ensure(row.booked_at < end <= row.created_at, "the row is written now and booked to its admission")


async def check_plan_switch_mints_no_second_allowance(harness: Harness) -> None:
    """What is used belongs to the account and its month, not to the plan; a downgrade never goes below 0."""
    store = harness.store
    payer = await on_plan(store, FREE)
    expect(await store.charge_credits(payer, 100), "using up the free plan")
    expect(await store.set_user_plan(payer, PRO), "upgrade")
    _allowance(await store.check_allowance(payer), "after an upgrade", used=100, held=0, remaining=200)
    expect(await store.charge_credits(payer, 50), "50 on the bigger plan")
    expect(await store.set_user_plan(payer, SMALL), "downgrade")
    _allowance(await store.check_allowance(payer), "after a downgrade", used=150, held=0, remaining=0)
    refused(await store.charge_credits(payer, 1), "insufficient_credits", "a charge after the downgrade")
    expect(await store.set_user_plan(payer, None), "no plan")
    expect(await store.set_user_plan(payer, FREE), "the first plan again")
    _allowance(await store.check_allowance(payer), "back on the first plan", used=150, held=0, remaining=0)


async def check_downgrade_keeps_a_held_allowance(harness: Harness) -> None:
    """A reservation keeps what it was admitted with, also after the plan has shrunk."""
    store = harness.store
    payer = await on_plan(store, FREE)
    reservation_id = await hold(store, payer, 90)
    expect(await store.set_user_plan(payer, SMALL), "downgrade")
    result = expect(await store.deduct_credits(payer, reservation_id, 90), "deduct after the downgrade")
    fields(result, {"allowance_consumed": 90, "amount": 0}, "deduct after the downgrade")
    _allowance(await store.check_allowance(payer), "after the downgrade", used=90, held=0, remaining=0)


async def check_usage_booking_stops_at_the_allowance(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=10)
    await store.increment_usage_window(payer, FREE, 60)
    fields(
        await last_row(store, payer),
        {"type": "allowance", "amount": 0, "allowance_consumed": 60, "balance_after": 10},
        "ledger row of booked allowance",
    )
    await store.increment_usage_window(payer, FREE, 60)
    _allowance(await store.check_allowance(payer), "after booking 120 of 100", used=100, held=0, remaining=0)
    await books(store, payer, "booked allowance takes no money", balance=10)


async def check_usage_booking_asks_only_that_the_plan_exists(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    await store.increment_usage_window(payer, PRO, 10)
    equal((await store.check_allowance(payer)).used, 10, "allowance used under the name of another plan")
    await raises(PlanNotFoundError, store.increment_usage_window(payer, key("plan"), 10), "an unknown plan")
    stranger = user()
    await raises(PlanNotFoundError, store.increment_usage_window(stranger, key("plan"), 10), "an unknown plan")
    equal(await rows(store, stranger), [], "ledger rows of the stranger")


async def check_refund_restores_the_allowance_of_its_month(harness: Harness) -> None:
    """Money returns first, then allowance."""
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    charged = expect(await store.charge_credits(payer, 120), "charge 120: 100 of allowance, 20 of money")
    transaction_id = known(charged.transaction_id, "transaction_id")
    first = expect(await store.refund_credits(transaction_id, 30, idempotency_key=key()), "refund 30")
    fields(first, {"amount": 20, "allowance_restored": 10, "balance_after": 50}, "refund of 30")
    _allowance(await store.check_allowance(payer), "after a refund of 30", used=90, held=0, remaining=10)
    rest = expect(await store.refund_credits(transaction_id), "refund of the rest")
    fields(rest, {"amount": 0, "allowance_restored": 90}, "refund of the rest")
    _allowance(await store.check_allowance(payer), "after both refunds", used=0, held=0, remaining=100)


async def check_refund_next_month_restores_no_allowance(harness: Harness) -> None:
    store = harness.store
    await just_before(harness, next_month)
    payer = await on_plan(store, FREE, credits=50)
    charged = expect(await store.charge_credits(payer, 120), "charge 120: 100 of allowance, 20 of money")
    await harness.advance(60)
    expect(await store.charge_credits(payer, 30), "30 of the new month's allowance")
    result = expect(await store.refund_credits(known(charged.transaction_id, "transaction_id")), "refund")
    fields(result, {"amount": 20, "allowance_restored": 0}, "refund in the next month")
    _allowance(await store.check_allowance(payer), "of the new month", used=30, held=0, remaining=70)
    await books(store, payer, "the money returned", balance=50)


async def check_expired_hold_returns_its_allowance(harness: Harness) -> None:
    store = harness.store
    await just_before(harness, next_month)
    await harness.advance(60)
    payer = await on_plan(store, FREE)
    await hold(store, payer, 100, ttl_seconds=10)
    await harness.advance(100)
    _allowance(await store.check_allowance(payer), "after a hold expired", used=0, held=0, remaining=100)


async def check_expiring_credits_wait_behind_the_allowance(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    await fund(store, 10, user_id=payer, type="grant")
    expect(await store.charge_credits(payer, 100), "charge of exactly the allowance")
    await books(store, payer, "credits are not touched before the allowance", balance=10)


async def check_late_deduct_uses_the_allowance_of_its_reserve(harness: Harness) -> None:
    """A hold that expired over the end of a month is paid by what is left of the month it was admitted in."""
    store = harness.store
    await just_before(harness, next_month)
    payer = await on_plan(store, FREE, credits=50)
    reservation_id = await hold(store, payer, 60, ttl_seconds=10)
    await harness.advance(200)
    result = expect(await store.deduct_credits(payer, reservation_id, 130), "late deduct in the next month")
    fields(result, {"late": True, "allowance_consumed": 100, "amount": 30}, "late deduct")
    _allowance(await store.check_allowance(payer), "of the new month", used=0, held=0, remaining=100)


async def check_clamp_takes_allowance_then_money_to_the_floor(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE, credits=50)
    reservation_id = await hold(store, payer, 50, min_balance=5, overage="clamp")
    result = expect(await store.deduct_credits(payer, reservation_id, 500), "deduct 500 with `clamp`")
    fields(
        result,
        {"allowance_consumed": 100, "amount": 45, "unbilled": 355, "balance_after": 5},
        "`clamp` with an allowance of 100, 50 of money and floor 5",
    )
