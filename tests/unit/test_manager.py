"""Prices, plans, the signup bonus, refusals and the events of the manager, over the memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ducto.errors import (
    ArgumentError,
    CapReachedError,
    ConfigError,
    ExpressionError,
    InsufficientCreditsError,
    PlanNotFoundError,
    ReservationNotFoundError,
    UnknownModelError,
)
from ducto.manager import CreditManager
from ducto.models import SpendCap
from ducto.stores.memory import MemoryStore
from tests.unit.manager_support import PRICING, Heard, TroubledStore, usage

CHEAP = {"models": {"m": "output_tokens"}, "min_balance": 0}
PLANS: dict[str, Any] = {
    **PRICING,
    "plans": {
        "free": {"features": ["chat"]},
        "pro": {"rate_overrides": {"m": "output_tokens * 4"}, "features": ["chat", "vision"]},
    },
    "default_plan": "free",
}


@pytest.fixture
def store() -> TroubledStore:
    return TroubledStore()


@pytest.fixture
async def manager(store: TroubledStore) -> AsyncIterator[CreditManager]:
    async with CreditManager(store, maintain_every_seconds=None) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u", 10_000, "purchase")
        yield manager


async def test_without_pricing_only_credits_can_be_reserved() -> None:
    async with CreditManager(MemoryStore()) as manager:
        await manager.add_credits("u", 100)
        with pytest.raises(ConfigError, match="publish_pricing"):
            await manager.reserve("u", usage(1))
        with pytest.raises(ConfigError, match="publish_pricing"):
            await manager.price(usage(1))
        with pytest.raises(InsufficientCreditsError):  # the default floor is 5
            await manager.reserve("u", 96)
        assert (await manager.reserve("u", 95)).held == 95


async def test_usage_is_priced_and_unknown_models_refused(manager: CreditManager) -> None:
    assert (await manager.price(usage(3, input=1))).total == 32
    assert (await manager.reserve("u", usage(3, model=None), model="m")).amount == 30
    with pytest.raises(UnknownModelError):
        await manager.reserve("u", usage(3, model="nope"))
    assert (await manager.deduct("u", usage(2))).amount == 20
    row = (await manager.list_transactions("u")).transactions[0]
    assert (row.type, row.model, row.usage) == ("charge", "m", usage(2))
    assert row.pricing_version == (await manager.pricing()).version


async def test_a_bad_config_is_refused_before_it_is_published(manager: CreditManager) -> None:
    with pytest.raises(ExpressionError):
        await manager.publish_pricing({"models": {"m": "output_tokenz * 2"}})
    assert len(await manager.get_pricing_history()) == 1


async def test_a_call_keeps_the_prices_of_its_admission(manager: CreditManager, store: TroubledStore) -> None:
    async with manager.meter("u", estimate=usage(10)) as call:
        await manager.publish_pricing(CHEAP)
        call.record(usage(10))
    assert (await manager.get_balance("u")).balance == 9900
    mine = await manager.reserve("u", usage(10))
    assert mine.amount == 10
    theirs = await manager.reserve("u", usage(10))
    await manager.publish_pricing(PRICING)
    assert (await manager.deduct("u", usage(10), reservation_id=mine.reservation_id)).amount == 10
    async with CreditManager(store) as elsewhere:  # another process knows only what the store knows
        assert (await elsewhere.deduct("u", usage(10, model=None), reservation_id=theirs.reservation_id)).amount == 10
        assert (await elsewhere.deduct("u", usage(10))).amount == 100


async def test_a_publish_elsewhere_is_seen_within_the_refresh(store: TroubledStore) -> None:
    async with CreditManager(store, pricing_refresh_seconds=0.1) as one, CreditManager(store) as other:
        await one.publish_pricing(PRICING)
        assert (await one.price(usage(1))).total == 10
        await other.publish_pricing(CHEAP)
        assert (await other.price(usage(1))).total == 1
        assert (await one.price(usage(1))).total == 10
        await asyncio.sleep(0.12)
        assert (await one.price(usage(1))).total == 1
        await one.activate_pricing(1)
        assert (await one.price(usage(1))).total == 10


async def test_the_pricing_is_read_once_for_many_callers() -> None:
    class Counting(MemoryStore):
        reads = 0

        async def get_active_pricing(self) -> Any:
            self.reads += 1
            await asyncio.sleep(0)
            return await super().get_active_pricing()

    store = Counting()
    async with CreditManager(store) as manager:
        await manager.publish_pricing(PRICING)
        engines = await asyncio.gather(*(manager.pricing() for _ in range(50)))
        assert store.reads == 1
        assert len({id(engine) for engine in engines}) == 1


async def test_plans_price_and_a_switch_is_noticed(store: TroubledStore) -> None:
    async with CreditManager(store, plan_refresh_seconds=60) as manager, CreditManager(store) as admin:
        await manager.publish_pricing(PLANS)
        await manager.add_credits("u", 10_000)
        assert (await manager.price(usage(1), user_id="u")).total == 10
        assert not await manager.check_feature("u", "vision")
        await admin.set_user_plan("u", "pro")  # behind the manager's back: its cached plan is a minute fresh
        async with manager.meter("u", estimate=usage(10)) as call:
            assert call.reservation.amount == 100
            assert call.reservation.plan_id == "pro"
            call.record(usage(10))
        assert (await manager.get_balance("u")).balance == 10_000 - 40
        assert (await manager.reserve("u", usage(10))).amount == 40
        assert await manager.check_feature("u", "vision")

        heard = Heard(manager, "credits.plan_changed")
        held = await manager.reserve("u", usage(10))
        await manager.set_user_plan("u", "free")
        assert (await manager.price(usage(1), user_id="u")).total == 10
        assert (await manager.deduct("u", usage(10), reservation_id=held.reservation_id)).amount == 40
        assert [event.data["previous_plan_id"] for event in await heard.of("plan_changed")] == ["pro"]
        with pytest.raises(PlanNotFoundError):
            await manager.set_user_plan("u", "gold")


async def test_plans_are_not_looked_up_where_none_changes_a_price() -> None:
    class NoLookups(MemoryStore):
        async def get_user_plan(self, user_id: str) -> Any:
            raise AssertionError("no plan changes a price")

    async with CreditManager(NoLookups()) as manager:
        await manager.publish_pricing({**PLANS, "plans": {"free": {"free_allowance": 10}}})
        await manager.add_credits("u", 1000)
        async with manager.meter("u", estimate=usage(10)) as call:
            call.record(usage(1))
        assert (await manager.check_allowance("u")).used == 10


async def test_the_signup_bonus_is_booked_once_and_not_for_teams(store: TroubledStore) -> None:
    config = {**PRICING, "signup_bonus": 500}
    async with CreditManager(store) as manager, CreditManager(store) as other:
        heard = Heard(manager, "credits.added")
        await manager.publish_pricing(config)
        team = await manager.create_team("t", 100)
        await manager.add_team_member(team.team_id or "", "m")
        await manager.reserve("m", 10, team_id=team.team_id)
        assert (await manager.get_balance("m")).balance == 0

        assert await manager.can_afford("new", 500)
        await asyncio.gather(
            *(manager.reserve("new", 1) for _ in range(5)), *(other.deduct("new", 0) for _ in range(5))
        )
        assert (await manager.get_balance("new")).balance == 500
        await manager.publish_pricing({**PRICING, "signup_bonus": 700})
        async with CreditManager(store) as later:
            await later.reserve("new", 1)
        assert (await manager.get_balance("new")).balance == 500
        assert [event.data["type"] for event in await heard.of("added") if event.user_id == "new"] == ["bonus"]
        with pytest.raises(ArgumentError):
            await manager.reserve(" padded", 1)


async def test_affordable_agrees_with_reserve(manager: CreditManager) -> None:
    await manager.publish_pricing(
        {**PRICING, "min_balance": 5, "plans": {"p": {"free_allowance": 50}}, "default_plan": "p"}
    )
    await manager.set_spend_cap(SpendCap(user_id="u", cap_type="daily", limit=5000))
    await manager.set_spend_cap(SpendCap(user_id="u", cap_type="hourly", limit=3000, model="m"))
    await manager.reserve("u", 100, model="m")
    for model, expected in (("m", 2900), ("other", 4900)):
        assert await manager.affordable("u", model=model) == expected
        assert await manager.can_afford("u", expected, model=model)
        assert not await manager.can_afford("u", expected + 1, model=model)
        with pytest.raises(CapReachedError):
            await manager.reserve("u", expected + 1, model=model)
    await manager.remove_spend_cap("u", "daily")
    await manager.remove_spend_cap("u", "hourly", model="m")
    assert await manager.affordable("u") == 10_000 - 50 - 5
    await manager.reserve("u", 10_000 - 50 - 5)
    assert not await manager.can_afford("u", 1)
    assert await manager.can_afford("u", 0)
    await manager.adjust_credits("u", 20_000, direction="debit", force=True)
    assert not await manager.can_afford("u", 0)
    assert await manager.affordable("u") == 0


async def test_events_of_the_money_verbs(manager: CreditManager) -> None:
    heard = Heard(manager)
    added = await manager.add_credits("v", 100, idempotency_key="pay")
    assert (await manager.add_credits("v", 100, idempotency_key="pay")).replayed
    held = await manager.reserve("v", 40, idempotency_key="r")
    await manager.reserve("v", 40, idempotency_key="r")
    await manager.deduct("v", 50, reservation_id=held.reservation_id)
    await manager.deduct("v", 50, reservation_id=held.reservation_id)
    assert await heard.names() == ["added", "reserved", "deducted", "overage"]
    heard.events.clear()
    charged = await manager.deduct("v", 5, idempotency_key="c")
    await manager.deduct("v", 5, idempotency_key="c")
    await manager.refund_credits(charged.transaction_id or "")
    await manager.transfer_credits("v", "w", 10)
    await manager.adjust_credits("v", 1, direction="credit")
    other = await manager.reserve("v", 1)
    await manager.renew("v", other.reservation_id or "")
    await manager.release("v", other.reservation_id or "")
    await manager.release("v", other.reservation_id or "")
    assert await heard.names() == [
        "charged",
        "refunded",
        "transferred",
        "adjusted",
        "reserved",
        "renewed",
        "released",
    ]
    assert heard.events[0].data["transaction_id"] == charged.transaction_id
    assert added.transaction_id != charged.transaction_id


async def test_refusals_are_announced_and_caps_too(manager: CreditManager) -> None:
    heard = Heard(manager)
    with pytest.raises(InsufficientCreditsError):
        await manager.reserve("u", 20_000)
    with pytest.raises(InsufficientCreditsError):
        await manager.deduct("u", 20_000)
    await manager.set_spend_cap(SpendCap(user_id="u", cap_type="daily", limit=100))
    await manager.set_spend_cap(SpendCap(user_id="u", cap_type="hourly", limit=10, action="warn"))
    await manager.set_spend_cap(SpendCap(user_id="u", cap_type="monthly", limit=10, action="notify"))
    with pytest.raises(CapReachedError):
        await manager.reserve("u", 101)
    assert await heard.names() == ["denied", "denied", "denied", "cap_reached"]
    assert heard.events[0].data["details"]["available"] == 10_000
    heard.events.clear()
    assert (await manager.reserve("u", 50)).cap_warning is not None
    assert sorted(await heard.names()) == ["cap_notice", "cap_warning", "reserved"]


async def test_low_balance_fires_when_a_threshold_is_crossed(store: TroubledStore) -> None:
    async with CreditManager(store, low_balance_thresholds=[100, 500], maintain_every_seconds=None) as manager:
        heard = Heard(manager, "credits.low_balance")
        await manager.add_credits("u", 1000)

        async def crossed(amount: int) -> list[int]:
            heard.events.clear()
            await manager.deduct("u", amount)
            return [event.data["threshold"] for event in await heard.of("low_balance")]

        assert await crossed(500) == []  # 500 is not below 500
        assert await crossed(1) == [500]
        assert await crossed(1) == []
        await manager.add_credits("u", 502)
        assert await crossed(950) == [500, 100]
        assert await crossed(1) == []


async def test_deduct_checks_what_belongs_to_the_reserve(manager: CreditManager) -> None:
    held = await manager.reserve("u", 10)
    with pytest.raises(ArgumentError, match="reserved"):
        await manager.deduct("u", 1, reservation_id=held.reservation_id, force=True)
    with pytest.raises(ReservationNotFoundError):
        await manager.deduct("somebody else", usage(1), reservation_id=held.reservation_id)
    assert (await manager.deduct("u", 20_000, force=True)).balance_after == -10_000


async def test_teams_are_charged_for_their_members(manager: CreditManager) -> None:
    heard = Heard(manager)
    team = await manager.create_team("t", 1000)
    assert team.team_id is not None
    await manager.add_team_member(team.team_id, "u")
    charged = await manager.deduct("u", usage(3), team_id=team.team_id)
    assert (charged.amount, charged.balance_after, charged.team_id) == (30, 970, team.team_id)
    async with manager.meter("u", estimate=usage(10), team_id=team.team_id) as call:
        call.record(usage(1))
    assert (await manager.get_team_balance(team.team_id)).balance == 960
    assert (await manager.get_balance("u")).balance == 10_000
    assert {event.team_id for event in await heard.of("charged") + await heard.of("deducted")} == {team.team_id}


async def test_a_cancelled_charge_is_never_lost(manager: CreditManager, store: TroubledStore) -> None:
    held = await manager.reserve("u", 100)
    store.pauses = 5
    task = asyncio.create_task(manager.deduct("u", usage(2), reservation_id=held.reservation_id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await manager.aclose()
    assert (await store.get_balance("u")).balance == 9980
