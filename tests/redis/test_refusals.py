"""Who was just refused is refused again without the inner store, until anything happens that may change the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ducto.errors import InsufficientCreditsError
from ducto.fresh_keys import FreshKey, new_key
from ducto.manager import CreditManager
from ducto.models import Outcome, SpendCap
from ducto.stores.redis import RedisCacheStore
from tests.redis.cache_support import CACHED_USER, PLANS, Fronts, fronts

Lift = Callable[[Fronts], Awaitable[object]]


@pytest.fixture
async def books() -> AsyncIterator[Fronts]:
    """A user and a member of a team with 100 credits each, of which 40 are held."""
    async with fronts() as made:
        store = made.probe.inner
        await store.set_active_pricing(PLANS)
        await store.add_credits(CACHED_USER, 60)
        await store.add_credits(CACHED_USER, 40, expires_at=made.clock() + timedelta(hours=1))
        await store.reserve_credits(CACHED_USER, 40, "chat", ttl_seconds=600, grace_seconds=0)
        yield made


def reserve(store: RedisCacheStore, amount: int = 100, **options: Any) -> Awaitable[Outcome]:
    return store.reserve_credits(CACHED_USER, amount, "chat", min_balance=0, idempotency_key=new_key(), **options)


async def asked(books: Fronts, call: Awaitable[Outcome]) -> tuple[Outcome, bool]:
    """The answer, and whether the inner store was asked to admit."""

    def admissions() -> int:
        return sum(books.probe.calls[verb] for verb in ("reserve_credits", "charge_credits", "deduct_team"))

    before = admissions()
    answer = await call
    return answer, admissions() > before


async def test_same_or_more_is_refused_with_the_numbers_of_the_inner_store(books: Fronts) -> None:
    first, reached = await asked(books, reserve(books.one))
    assert (first.error, reached) == ("insufficient_credits", True)
    for amount in (100, 101, 2**53 - 1):
        for store in books.opened:
            refused, reached = await asked(books, reserve(store, amount))
            assert not reached
            inner = await books.probe.inner.reserve_credits(CACHED_USER, amount, "chat", min_balance=0)
            assert refused == inner
    assert (books.one.counters.refusals, books.other.counters.refusals) == (3, 3)


async def test_part_that_the_allowance_pays_is_told_apart(books: Fronts) -> None:
    await books.one.set_user_plan(CACHED_USER, "pro")
    for amount in (200, 203):
        refused, _ = await asked(books, reserve(books.one, amount))
        inner = await books.probe.inner.reserve_credits(CACHED_USER, amount, "chat", min_balance=0)
        assert refused == inner
        assert refused.details is not None
        assert refused.details.required == amount - 50
    assert books.one.counters.refusals == 1


async def test_charges_are_refused_too(books: Fronts) -> None:
    def charge(store: RedisCacheStore, amount: int) -> Awaitable[Outcome]:
        return store.charge_credits(CACHED_USER, amount, idempotency_key=new_key())

    await charge(books.one, 100)
    refused, reached = await asked(books, charge(books.other, 102))
    assert (refused, reached) == (await books.probe.inner.charge_credits(CACHED_USER, 102), False)
    forced, reached = await asked(books, books.one.charge_credits(CACHED_USER, 102, force=True))
    assert forced.ok
    assert reached


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 99},
        {"min_balance": -1},
        {"model": "m"},
        {"feature": "vision"},
        {"max_concurrent": 1},
        {"ttl_seconds": 5},
        {"metadata": {"a": float("nan")}},
        {"amount": 0},
        {"amount": -1},
        {"fingerprint": ""},
        {"attempt_id": ""},
        {"idempotency_key": "mine"},
        {"idempotency_key": FreshKey("")},
    ],
    ids=str,
)
async def test_another_call_is_asked_of_the_inner_store(books: Fronts, other: dict[str, Any]) -> None:
    call = {"amount": 100, "operation_type": "chat", "min_balance": 0, "idempotency_key": None}
    await books.one.reserve_credits(CACHED_USER, **call)
    _, reached = await asked(books, books.one.reserve_credits(CACHED_USER, **call))
    assert not reached
    _, reached = await asked(books, books.one.reserve_credits(CACHED_USER, **{**call, **other}))
    assert reached


async def release(books: Fronts) -> object:
    return await books.other.release_reservation(CACHED_USER, "rsv_uYW5u.1")


async def refund(books: Fronts) -> object:
    charged = await books.probe.inner.charge_credits(CACHED_USER, 50)
    await reserve(books.one)  # The refusal that is kept is that of a poorer user.
    return await books.other.refund_credits(str(charged.transaction_id))


async def publish(books: Fronts) -> object:
    config = {"plans": {"free": {"free_allowance": 500}}, "default_plan": "free"}
    return await books.other.set_active_pricing(config)


async def activate(books: Fronts) -> object:
    await books.probe.inner.set_active_pricing({})
    return await books.other.activate_pricing(1)


async def let_the_hold_end(books: Fronts) -> object:
    return books.clock.advance(600)


_LIFTS: dict[str, Lift] = {
    "top-up": lambda books: books.other.add_credits(CACHED_USER, 50),
    "adjustment": lambda books: books.other.adjust_credits(CACHED_USER, 50, direction="credit"),
    "release": release,
    "settlement for less": lambda books: books.other.deduct_credits(CACHED_USER, "rsv_uYW5u.1", 1),
    "refund": refund,
    "plan change": lambda books: books.other.set_user_plan(CACHED_USER, "pro"),
    "cap change": lambda books: books.other.set_spend_cap(
        SpendCap(user_id=CACHED_USER, cap_type="daily", limit=1, action="deny")
    ),
    "expiry of a hold": let_the_hold_end,
    "publish": publish,
    "activation": activate,
    "incoming transfer": lambda books: books.other.transfer_credits("rich", CACHED_USER, 50),
}


@pytest.mark.parametrize("lift", _LIFTS)
async def test_what_may_change_the_answer_lifts_the_refusal(books: Fronts, lift: str) -> None:
    await books.probe.inner.add_credits("rich", 100)
    await reserve(books.one)
    assert not (await asked(books, reserve(books.one)))[1]
    await _LIFTS[lift](books)
    answer, reached = await asked(books, reserve(books.one))
    assert reached
    if lift == "cap change":  # Caps come before funds.
        assert answer.error == "cap_reached"


async def test_refusal_is_good_for_a_second(books: Fronts) -> None:
    await reserve(books.one)
    await books.probe.inner.add_credits(CACHED_USER, 50)  # Past Redis.
    assert (await reserve(books.one)).error == "insufficient_credits"
    await asyncio.sleep(1.0)
    assert (await reserve(books.one)).ok


async def test_when_a_refusal_has_grown_old_one_of_many_asks(books: Fronts) -> None:
    await reserve(books.one)
    await books.other.add_credits(CACHED_USER, 1)  # Which lifts it, and changes nothing.
    before = books.probe.calls["reserve_credits"]
    answers = await asyncio.gather(*(reserve(books.one) for _ in range(50)))
    assert {each.error for each in answers} == {"insufficient_credits"}
    assert books.probe.calls["reserve_credits"] == before + 1


async def test_nobody_waits_for_another_once_there_are_credits(books: Fronts) -> None:
    await reserve(books.one)
    await books.other.add_credits(CACHED_USER, 1_000)
    answers = await asyncio.gather(*(reserve(books.one) for _ in range(20)))
    assert sum(each.ok for each in answers) == 10
    before = books.probe.calls["reserve_credits"]
    await books.other.add_credits(CACHED_USER, 100)
    assert sum(each.ok for each in await asyncio.gather(*(reserve(books.one) for _ in range(5)))) == 1
    assert books.probe.calls["reserve_credits"] > before


async def test_where_caps_come_first_nothing_is_kept(books: Fronts) -> None:
    await books.one.set_spend_cap(SpendCap(user_id=CACHED_USER, cap_type="daily", limit=150, action="deny"))
    for amount, error in ((100, "insufficient_credits"), (100, "insufficient_credits"), (200, "cap_reached")):
        answer, reached = await asked(books, reserve(books.one, amount))
        assert (answer.error, reached) == (error, True)


async def test_debtor_is_not_refused_by_amounts_that_the_allowance_pays(books: Fronts) -> None:
    """Another floor holds for those, and a larger amount would be refused with other numbers."""
    await books.one.set_user_plan(CACHED_USER, "pro")
    await books.one.adjust_credits(CACHED_USER, 200, direction="debit", force=True)
    for amount in (10, 10, 200):
        answer, reached = await asked(books, reserve(books.one, amount))
        assert reached
        assert answer == await books.probe.inner.reserve_credits(CACHED_USER, amount, "chat", min_balance=0)


async def test_member_is_refused_until_team_or_plan_change(books: Fronts) -> None:
    team_id = str((await books.one.create_team("red", 20)).team_id)
    await books.one.add_team_member(team_id, CACHED_USER)

    async def charge(amount: int = 50) -> tuple[Outcome, bool]:
        return await asked(books, books.one.deduct_team(team_id, CACHED_USER, amount, idempotency_key=new_key()))

    lifts: list[Callable[[], Awaitable[object]]] = [
        lambda: books.other.add_team_credits(team_id, 1),
        lambda: books.other.set_user_plan(CACHED_USER, "pro"),
        lambda: books.other.add_team_member(team_id, "bob"),
        lambda: books.other.set_member_cap(team_id, CACHED_USER, 60),
    ]
    for lift in lifts:
        assert (await charge())[1]
        again, reached = await charge(51)
        assert not reached
        assert again == await books.probe.inner.deduct_team(team_id, CACHED_USER, 51)
        await lift()
    for amount, error in ((50, "insufficient_credits"), (50, "insufficient_credits"), (70, "member_cap_reached")):
        answer, reached = await charge(amount)
        assert (answer.error, reached) == (error, True)


async def test_fresh_key_is_fresh_once(books: Fronts) -> None:
    """A repetition of a call that may have been accepted must find out."""
    await reserve(books.one)
    key = new_key()
    for fresh in (True, False):
        call = books.one.reserve_credits(CACHED_USER, 100, "chat", min_balance=0, idempotency_key=key)
        assert (await asked(books, call))[1] is not fresh


async def test_callers_of_the_manager_without_a_key_are_refused_cheaply(books: Fronts) -> None:
    async with CreditManager(books.one) as manager:
        for key, reached in ((None, True), (None, False), ("mine", True)):
            before = books.probe.calls["charge_credits"]
            with pytest.raises(InsufficientCreditsError):
                await manager.charge_credits(CACHED_USER, 100, idempotency_key=key)
            assert (books.probe.calls["charge_credits"] > before) is reached


async def test_off_by_option() -> None:
    async with fronts(cheap_refusals=False) as books:
        for _ in range(3):
            await reserve(books.one)
        assert books.probe.calls["reserve_credits"] == 3
        assert books.one.counters.refusals == 0
