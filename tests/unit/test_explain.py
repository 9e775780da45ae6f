"""Receipts, from rows that a real store wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ducto import CreditManager, MemoryStore, SpendCap, UsageMetrics
from ducto.explain import Receipt, explain
from ducto.models import Transaction
from ducto.testing.clock import ManualClock

PRICING = {
    "models": {
        "gpt": {"unit": "usd", "input": "2.50", "cache_read": "1.25", "output": 10},
        "house": "input_tokens * 2",
    },
    "plans": {
        "free": {"free_allowance": 1_000},
        "pro": {"rate_overrides": {"house": "input_tokens * 1"}},
    },
    "markup": "1.2",
    "min_balance": 0,
}


@dataclass
class Shop:
    """A memory store with prices, its manager and its clock."""

    store: MemoryStore
    manager: CreditManager
    clock: ManualClock

    async def spent(self, usage: UsageMetrics | int, *, user: str = "alice", **options: Any) -> Transaction:
        result = await self.manager.deduct(user, usage, **options)
        assert result.transaction_id is not None
        return await self.store.get_transaction(result.transaction_id)

    async def settled(self, actual: UsageMetrics | int, *, reserved: int, later: float = 0, **terms: Any) -> Receipt:
        """Reserve, wait, deduct: the receipt of the deduction."""
        held = await self.manager.reserve("alice", reserved, **terms)
        assert held.reservation_id is not None
        self.clock.advance(later)
        row = await self.spent(actual, reservation_id=held.reservation_id)
        return await self.receipt(row)

    async def receipt(self, row: Transaction, **more: Any) -> Receipt:
        assert row.user_id is not None
        version = await self.store.get_pricing_config(row.pricing_version) if row.pricing_version else None
        plans = {} if version is None else version.config.plans
        reservation = None
        if row.reservation_id is not None:
            reservation = await self.store.get_reservation(row.user_id, row.reservation_id)
        plan = plans.get(row.plan_id or "")
        return explain(row, pricing=version, plan=plan, reservation=reservation, **more)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    clock = ManualClock()
    async with MemoryStore(clock=clock) as store, CreditManager(store, maintain_every_seconds=None) as manager:
        await manager.publish_pricing(PRICING, "list of January")
        await manager.add_credits("alice", 100_000, "purchase")
        yield Shop(store, manager, clock)


async def test_parts_add_up_to_what_was_charged(shop: Shop) -> None:
    usage = UsageMetrics(model="gpt", input_tokens=1_000, cache_read_tokens=100, output_tokens=7)
    receipt = await shop.receipt(await shop.spent(usage))
    assert receipt.pricing is not None
    parts = {part.name: (part.quantity, part.rate, part.credits) for part in receipt.pricing.parts}
    assert parts == {
        "input_tokens": (1_000, Decimal(3_000_000), Decimal(3_000)),
        "cache_read_tokens": (100, Decimal(1_500_000), Decimal(150)),
        "output_tokens": (7, Decimal(12_000_000), Decimal(84)),
    }
    assert receipt.pricing.exact == sum(part.credits for part in receipt.pricing.parts)
    assert receipt.pricing.price == receipt.actual == receipt.charged == receipt.paid == 3_234
    assert (receipt.pricing.version, receipt.pricing.label, receipt.pricing.key) == (1, "list of January", "gpt")
    assert receipt.pricing.formula == "rate table in usd per 1,000,000, x 1000000 credits per usd x markup 1.2"
    assert receipt.remarks == ("A charge without a reservation.",)


async def test_the_version_of_then_prices_it_though_another_is_active(shop: Shop) -> None:
    row = await shop.spent(UsageMetrics(model="house", input_tokens=50))
    await shop.manager.publish_pricing({**PRICING, "models": {"house": "input_tokens * 9"}})
    receipt = await shop.receipt(row)
    assert receipt.pricing is not None
    assert (receipt.pricing.price, receipt.pricing.formula, receipt.pricing.version) == (100, "input_tokens * 2", 1)


async def test_formula_is_the_plans_where_the_plan_gave_the_price(shop: Shop) -> None:
    await shop.manager.set_user_plan("alice", "pro")
    receipt = await shop.receipt(await shop.spent(UsageMetrics(model="house", input_tokens=50)))
    assert receipt.pricing is not None
    assert (receipt.pricing.formula, receipt.pricing.from_plan, receipt.pricing.plan_id) == (
        "input_tokens * 1",
        True,
        "pro",
    )
    assert receipt.actual == receipt.pricing.price == 50


async def test_allowance_and_balance_each_paid_a_part(shop: Shop) -> None:
    await shop.manager.set_user_plan("alice", "free")
    receipt = await shop.receipt(await shop.spent(UsageMetrics(model="house", input_tokens=700)))
    assert (receipt.charged, receipt.allowance, receipt.paid) == (1_400, 1_000, 400)
    assert receipt.transaction.amount == -400


async def test_hold_against_actual(shop: Shop) -> None:
    less = await shop.settled(UsageMetrics(model="house", input_tokens=20), reserved=100, min_balance=3)
    assert less.hold is not None
    assert (less.hold.reserved, less.hold.unused, less.hold.overage) == (100, 60, 0)
    assert (less.hold.policy, less.hold.min_balance, less.hold.expires_at) == (
        "debt",
        3,
        shop.clock().replace(minute=10),
    )
    more = await shop.settled(130, reserved=100)
    assert more.hold is not None
    assert (more.hold.unused, more.hold.overage) == (0, 30)
    assert any("no usage was recorded" in remark for remark in more.remarks)


async def test_clamp_and_max_settle_say_why_less_was_charged(shop: Shop) -> None:
    clamped = await shop.settled(150_000, reserved=100, overage="clamp", min_balance=1_000)
    assert (clamped.actual, clamped.charged, clamped.unbilled) == (150_000, 99_000, 51_000)
    assert any("clamped" in remark for remark in clamped.remarks)
    await shop.manager.add_credits("alice", 100_000)
    suspect = await shop.settled(5_000, reserved=100, max_settle=400)
    assert (suspect.charged, suspect.unbilled) == (400, 4_600)
    assert any("max_settle" in remark for remark in suspect.remarks)
    assert not any("clamped" in remark for remark in suspect.remarks)


async def test_a_late_call_had_nothing_held(shop: Shop) -> None:
    late = await shop.settled(40, reserved=100, later=3_600)
    assert late.hold is not None
    assert (late.hold.unused, late.hold.overage) == (0, 40)
    assert any("expired" in remark for remark in late.remarks)


async def test_estimate_and_force_are_said(shop: Shop) -> None:
    guess = UsageMetrics(model="house", input_tokens=10)
    estimated = await shop.receipt(await shop.spent(guess, estimated=True))
    assert any("estimate" in remark for remark in estimated.remarks)
    forced = await shop.receipt(await shop.spent(5, force=True))
    assert any("forced" in remark for remark in forced.remarks)


async def test_a_refund_names_what_it_returned(shop: Shop) -> None:
    spent = await shop.spent(UsageMetrics(model="house", input_tokens=10))
    refund = await shop.manager.refund_credits(spent.transaction_id, 4)
    assert refund.transaction_id is not None
    receipt = explain(await shop.store.get_transaction(refund.transaction_id))
    assert receipt.refunded == 4
    assert receipt.remarks[-1] == f"It returned 4 credits of {spent.transaction_id}."


async def test_an_amount_that_its_usage_does_not_come_to_is_said(shop: Shop) -> None:
    usage = UsageMetrics(model="house", input_tokens=10)
    result = await shop.store.charge_credits("alice", 999, usage=usage, model="house", pricing_version="1")
    assert result.transaction_id is not None
    row = await shop.store.get_transaction(result.transaction_id)
    active = await shop.store.get_active_pricing()
    receipt = explain(row, pricing=active)
    assert any("comes to 20 credits" in remark and "999 were booked" in remark for remark in receipt.remarks)
    lost = explain(row, pricing=None)
    assert lost.pricing is None
    assert any("is not in the store" in remark for remark in lost.remarks)


async def test_caps_that_cover_the_spend_with_its_window(shop: Shop) -> None:
    caps = [
        SpendCap(user_id="alice", cap_type="daily", limit=5_000),
        SpendCap(user_id="alice", cap_type="monthly", limit=9_000, model="house"),
        SpendCap(user_id="alice", cap_type="hourly", limit=1, model="gpt"),
    ]
    row = await shop.spent(UsageMetrics(model="house", input_tokens=10))
    receipt = await shop.receipt(row, caps=caps)
    assert [(cap.window, cap.model, cap.window_start) for cap in receipt.caps] == [
        ("daily", None, shop.clock()),
        ("monthly", "house", shop.clock()),
    ]


async def test_grants_show_what_was_held_burned_and_given_back(shop: Shop) -> None:
    first, second = (shop.clock() + timedelta(days=days) for days in (1, 2))
    for expires_at in (first, second):
        await shop.manager.add_credits("alice", 50, "grant", expires_at=expires_at)
    less = await shop.settled(60, reserved=120)
    told = [(each.grant, each.expires_at, each.held, each.moved, each.given_back) for each in less.grants]
    assert told == [(1, first, 50, -50, 0), (2, second, 50, -10, 40)]
    assert (less.base, less.transaction.amount) == (0, -60)
    more = await shop.settled(70, reserved=5)
    assert [(each.grant, each.held, each.moved, each.given_back) for each in more.grants] == [(2, 5, -40, 0)]
    assert more.base == -30
    refund = await shop.manager.refund_credits(less.transaction.transaction_id, 15)
    returned = explain(await shop.store.get_transaction(refund.transaction_id or ""))
    assert [(each.grant, each.moved, each.held) for each in returned.grants] == [(2, 10, None), (1, 5, None)]


async def test_a_late_call_burns_without_a_hold(shop: Shop) -> None:
    await shop.manager.add_credits("alice", 50, "grant", expires_at=shop.clock() + timedelta(days=1))
    late = await shop.settled(40, reserved=100, later=3_600)
    assert [(each.moved, each.held, each.given_back) for each in late.grants] == [(-40, None, None)]


async def test_caps_that_it_went_over_are_those_of_then(shop: Shop) -> None:
    cap = SpendCap(user_id="alice", cap_type="daily", limit=50, action="warn")
    await shop.manager.set_spend_cap(cap)
    reserved = await shop.settled(10, reserved=60)
    row = await shop.spent(45)
    await shop.manager.remove_spend_cap("alice", "daily")
    charged = await shop.receipt(row)
    for receipt, spent in ((reserved, 0), (charged, 10)):
        (found,) = receipt.caps_exceeded
        assert (found.cap, found.action, found.spent, receipt.caps) == (cap, "warn", spent, ())


async def test_a_teams_call_is_limited_by_the_members_cap_alone(shop: Shop) -> None:
    team = await shop.manager.create_team("Red", 500)
    assert team.team_id is not None
    await shop.manager.add_team_member(team.team_id, "alice", spend_cap=200)
    (member,) = await shop.manager.get_team_members(team.team_id)
    row = await shop.spent(50, team_id=team.team_id)
    own = SpendCap(user_id="alice", cap_type="daily", limit=5_000)
    receipt = await shop.receipt(row, caps=[own], member=member)
    assert [(cap.window, cap.limit) for cap in receipt.caps] == [("lifetime", 200)]
    assert any("team's pool paid" in remark for remark in receipt.remarks)


async def test_rows_that_are_no_spend_have_a_receipt_too(shop: Shop) -> None:
    (row,) = (await shop.store.list_transactions("alice")).transactions
    receipt = explain(row)
    assert (receipt.pricing, receipt.hold, receipt.caps) == (None, None, ())
    assert receipt.remarks == ("Credits came in as a purchase.",)
