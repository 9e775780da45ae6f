"""Replays of histories that a real store wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ducto import CreditManager, MemoryStore, PricingConfigData, SpendCap, UsageMetrics
from ducto.errors import CreditError
from ducto.models import Transaction
from ducto.simulate import Simulation, SimulationResult
from ducto.testing.clock import ManualClock

START = datetime(2026, 1, 10, tzinfo=UTC)
END = START + timedelta(days=20)
THEN: dict[str, Any] = {
    "models": {"a": "input_tokens * 2", "b": "input_tokens * 5"},
    "plans": {"free": {"free_allowance": 1_000}},
    "min_balance": 0,
}


class History:
    """Calls on a memory store, and what a config would have made of them."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = MemoryStore(clock=self.clock)
        self.manager = CreditManager(self.store, maintain_every_seconds=None)
        self.users: set[str] = set()
        self.teams: set[str] = set()

    async def begin(self, config: dict[str, Any] = THEN, **credits: int) -> None:
        await self.manager.publish_pricing(config)
        for user, amount in credits.items():
            await self.manager.add_credits(user, amount)

    async def call(self, user: str, model: str, tokens: int, **options: Any) -> None:
        self.users.add(user)
        await self.manager.deduct(user, UsageMetrics(model=model, input_tokens=tokens), **options)
        self.clock.advance(60)

    async def rows(self) -> list[Transaction]:
        pages = [await self.store.list_transactions(user, limit=1000) for user in sorted(self.users)]
        pages += [await self.store.list_transactions(team_id=team, limit=1000) for team in sorted(self.teams)]
        return [row for page in pages for row in reversed(page.transactions)]

    async def under(self, config: dict[str, Any], *, since: datetime = START, **options: Any) -> SimulationResult:
        simulation = Simulation(PricingConfigData.model_validate(config), since=since, until=END, **options)
        for row in await self.rows():
            simulation.add(row)
        await self.manager.aclose()
        return simulation.result()


def models(result: SimulationResult) -> dict[str | None, tuple[int, int]]:
    return {each.model: (each.revenue_then, each.revenue_now) for each in result.models}


async def test_revenue_then_and_now_by_model_and_user() -> None:
    history = History()
    await history.begin(alice=10_000, bob=10_000)
    await history.call("alice", "a", 100)
    await history.call("alice", "b", 100)
    await history.call("bob", "a", 300)
    result = await history.under({"models": {"a": "input_tokens * 3", "b": "input_tokens * 4"}})
    assert (result.total.calls, result.total.revenue_then, result.total.revenue_now) == (3, 1_300, 1_600)
    assert models(result) == {"a": (800, 1_200), "b": (500, 400)}
    assert {each.user_id: each.revenue_now for each in result.users} == {"alice": 700, "bob": 900}
    assert result.refusals == ()


async def test_calls_without_usage_keep_their_amount() -> None:
    history = History()
    await history.begin(alice=1_000)
    history.users.add("alice")
    await history.manager.deduct("alice", 123)
    result = await history.under({"models": {}})
    assert (result.without_usage, result.total.revenue_then, result.total.revenue_now) == (1, 123, 123)


async def test_a_model_without_a_price_is_refused() -> None:
    history = History()
    await history.begin(alice=1_000)
    await history.call("alice", "a", 10)
    await history.call("alice", "a", 10)
    result = await history.under({"models": {"b": "1"}})
    (refusal,) = result.refusals
    assert (refusal.user_id, refusal.code, refusal.calls, refusal.first_at) == ("alice", "price_unknown", 2, START)
    assert (result.total.refused, result.total.revenue_now) == (2, 0)


async def test_who_runs_out_of_credits_is_refused_and_pays_nothing_for_it() -> None:
    history = History()
    await history.begin(alice=1_000, bob=100_000)
    for user in ("alice", "bob"):
        for _ in range(4):
            await history.call(user, "a", 100)
    result = await history.under({"models": {"a": "input_tokens * 4"}, "min_balance": 0})
    (refusal,) = result.refusals
    # 1,000 credits buy two calls of 400; the last two of four do not happen.
    assert (refusal.user_id, refusal.code, refusal.calls) == ("alice", "insufficient_credits", 2)
    assert {each.user_id: each.revenue_now for each in result.users} == {"alice": 800, "bob": 1_600}


async def test_a_top_up_counts_when_it_came() -> None:
    history = History()
    await history.begin(alice=500)
    await history.call("alice", "a", 100)
    await history.call("alice", "a", 100)
    await history.manager.add_credits("alice", 10_000)
    await history.call("alice", "a", 100)
    result = await history.under({"models": {"a": "input_tokens * 5"}, "min_balance": 0})
    (refusal,) = result.refusals
    assert (refusal.calls, result.total.revenue_now) == (1, 1_000)


async def test_a_forced_charge_is_never_refused() -> None:
    history = History()
    await history.begin(alice=300)
    await history.call("alice", "a", 100, force=True)
    result = await history.under({"models": {"a": "input_tokens * 50"}})
    assert (result.refusals, result.total.revenue_now) == ((), 5_000)


async def test_allowance_pays_first_by_its_new_size() -> None:
    history = History()
    await history.begin(alice=10_000)
    await history.manager.set_user_plan("alice", "free")
    await history.call("alice", "a", 400)
    await history.call("alice", "a", 400)
    larger = {**THEN, "plans": {"free": {"free_allowance": 1_500}}}
    result = await history.under(larger)
    assert (result.total.charged_then, result.total.revenue_then) == (1_600, 600)
    assert (result.total.charged_now, result.total.revenue_now) == (1_600, 100)


async def test_what_came_before_the_window_used_up_allowance_and_is_not_counted() -> None:
    history = History()
    await history.begin(alice=10_000)
    await history.manager.set_user_plan("alice", "free")
    await history.call("alice", "a", 450)
    await history.call("alice", "a", 450)
    result = await history.under(THEN, since=START + timedelta(seconds=30))
    assert (result.total.calls, result.total.revenue_then, result.total.revenue_now) == (1, 800, 800)


async def test_denying_caps_refuse_and_begin_anew_with_their_window() -> None:
    history = History()
    await history.begin(alice=100_000)
    for _ in range(3):
        await history.call("alice", "a", 100)
    history.clock.advance(86_400)
    await history.call("alice", "a", 100)
    caps = {
        "alice": [
            SpendCap(user_id="alice", cap_type="daily", limit=1_000, model="a"),
            SpendCap(user_id="alice", cap_type="monthly", limit=1, action="warn"),
        ]
    }
    result = await history.under({"models": {"a": "input_tokens * 5"}}, caps=caps)
    (refusal,) = result.refusals
    assert (refusal.code, refusal.calls, result.total.revenue_now) == ("cap_reached", 1, 1_500)


async def test_caps_count_what_was_spent_before_the_window_and_forgive_what_was_let_pass_then() -> None:
    history = History()
    await history.begin(alice=100_000)
    for _ in range(3):
        await history.call("alice", "a", 100)
    caps = {"alice": [SpendCap(user_id="alice", cap_type="monthly", limit=700)]}
    third = START + timedelta(seconds=120)
    dearer = await history.under({"models": {"a": "input_tokens * 4"}}, since=third, caps=caps)
    assert [refusal.code for refusal in dearer.refusals] == ["cap_reached"], "200 + 200 + 400 is more than 700"
    low = {"alice": [SpendCap(user_id="alice", cap_type="monthly", limit=100)]}
    assert (await history.under(THEN, caps=low)).refusals == (), "it was let pass: the cap came later"


async def test_prices_of_the_plan_of_then() -> None:
    history = History()
    plans = {"pro": {"rate_overrides": {"a": "input_tokens * 1"}}}
    await history.begin({**THEN, "plans": plans}, alice=10_000)
    await history.manager.set_user_plan("alice", "pro")
    await history.call("alice", "a", 100)
    kept = await history.store.list_plans()
    cheaper = {"models": {"a": "7"}, "plans": {"pro": {"rate_overrides": {"a": "input_tokens * 4"}}}}
    assert (await history.under(cheaper)).total.revenue_now == 400
    assert (await history.under(cheaper, plans=kept)).total.revenue_now == 400, "its new definition"
    assert (await history.under({"models": {"a": "7"}}, plans=kept)).total.revenue_now == 100
    assert (await history.under({"models": {"a": "7"}})).total.revenue_now == 7


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["alice", "bob"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 400),
        st.sampled_from(["direct", "reserved", "clamped", "team", "refunded", "forced"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=CALLS)
async def test_under_the_prices_of_then_nothing_changes_and_nobody_is_refused(
    calls: list[tuple[str, str, int, str]],
) -> None:
    history = History()
    await history.begin(alice=4_000, bob=1_500)
    await history.manager.set_user_plan("alice", "free")
    team = (await history.manager.create_team("Red", 2_000)).team_id
    assert team is not None
    history.teams.add(team)
    history.users |= {"alice", "bob"}
    for user in ("alice", "bob"):
        await history.manager.add_team_member(team, user)
    for user, model, tokens, how in calls:
        try:
            await _one_call(history, user, model, tokens, how=how, team=team)
        except CreditError:
            continue
    result = await history.under(THEN)
    assert result.refusals == ()
    assert result.total.charged_now == result.total.charged_then
    assert result.total.revenue_now == result.total.revenue_then


async def _one_call(history: History, user: str, model: str, tokens: int, *, how: str, team: str) -> None:
    usage = UsageMetrics(model=model, input_tokens=tokens)
    if how in ("reserved", "clamped"):
        overage = "clamp" if how == "clamped" else "debt"
        held = await history.manager.reserve(user, 200, model=model, overage=overage)
        assert held.reservation_id is not None
        await history.manager.deduct(user, usage, reservation_id=held.reservation_id)
        return
    result = await history.manager.deduct(user, usage, team_id=team if how == "team" else None, force=how == "forced")
    if how == "refunded" and result.actual:
        assert result.transaction_id is not None
        await history.manager.refund_credits(result.transaction_id)
