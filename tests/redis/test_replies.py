"""A keyed call that was answered is answered again without the inner store, and only the same call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from ducto.fresh_keys import new_key
from ducto.models import Outcome
from ducto.testing.servers.redis import redis_server
from ducto.usage import UsageMetrics
from tests.redis.cache_support import CACHED_USER, PLANS, Fronts, fronts


class Call(NamedTuple):
    """A verb, its arguments, and one of them changed so that it is another call."""

    verb: str
    given: dict[str, Any]
    other: dict[str, Any]


@pytest.fixture
async def books() -> AsyncIterator[Fronts]:
    async with fronts() as made:
        await made.one.set_active_pricing(PLANS)
        await made.one.add_credits(CACHED_USER, 1000)
        yield made


async def calls(books: Fronts) -> list[Call]:
    """One of each verb whose replies are kept."""
    store = books.probe.inner
    team_id = (await store.create_team("red", 500)).team_id
    await store.add_team_member(str(team_id), CACHED_USER)
    own = await store.reserve_credits(CACHED_USER, 10, "chat")
    shared = await store.reserve_credits(CACHED_USER, 10, "chat", team_id=team_id)
    spent = await store.charge_credits(CACHED_USER, 30)
    notes = {"metadata": {"trace": 1}, "usage": UsageMetrics(model="m", input_tokens=3)}
    return [
        Call("charge_credits", {"user_id": CACHED_USER, "amount": 5, "model": "m", **notes}, {"amount": 6}),
        Call("deduct_team", {"team_id": team_id, "user_id": CACHED_USER, "amount": 5, **notes}, {"model": "n"}),
        Call("add_credits", {"user_id": CACHED_USER, "amount": 5, "type": "purchase"}, {"amount": 6}),
        Call("add_team_credits", {"team_id": team_id, "amount": 5}, {"amount": 6}),
        Call("refund_credits", {"transaction_id": spent.transaction_id, "amount": 5}, {"amount": None}),
        Call(
            "deduct_credits",
            {"user_id": CACHED_USER, "reservation_id": own.reservation_id, "amount": 5, **notes},
            {"amount": 6},
        ),
        Call(
            "deduct_credits",
            {"user_id": CACHED_USER, "reservation_id": shared.reservation_id, "amount": 5},
            {"amount": 6},
        ),
    ]


async def test_repeated_call_is_answered_without_the_inner_store(books: Fronts) -> None:
    for number, call in enumerate(await calls(books)):
        key = f"k{number}"
        first: Outcome = await getattr(books.one, call.verb)(**call.given, idempotency_key=key)
        assert first.ok, call
        assert not first.replayed
        before = books.probe.calls[call.verb]
        again = await getattr(books.other, call.verb)(**call.given, idempotency_key=key)
        assert again == first.model_copy(update={"replayed": True}), call
        assert books.probe.calls[call.verb] == before, call
        inner = await getattr(books.probe.inner, call.verb)(**call.given, idempotency_key=key)
        assert again == inner
    assert books.other.counters.replies == 7


async def test_anything_else_under_the_key_goes_to_the_inner_store(books: Fronts) -> None:
    for number, call in enumerate(await calls(books)):
        key = f"k{number}"
        await getattr(books.one, call.verb)(**call.given, idempotency_key=key)
        for changed in (
            call.other,
            {"metadata": {"a": float("nan")}},
            {"amount": True},
            {"amount": 10**5000},
            *([{"usage": 5}, {"pricing_version": " "}] if "usage" in call.given else []),
        ):
            given = {**call.given, **changed, "idempotency_key": key}
            before = books.probe.calls[call.verb]
            answer = await getattr(books.other, call.verb)(**given)
            assert answer == await getattr(books.probe.inner, call.verb)(**given), (call.verb, changed)
            assert answer.error in ("idempotency_mismatch", "invalid_argument", "invalid_amount"), (call.verb, changed)
            assert books.probe.calls[call.verb] == before + 1
    assert books.other.counters.replies == 0


async def test_notes_may_differ_between_a_call_and_its_retry(books: Fronts) -> None:
    first = await books.one.charge_credits(CACHED_USER, 5, metadata={"try": 1}, idempotency_key="k")
    again = await books.one.charge_credits(CACHED_USER, 5, metadata={"try": 2}, idempotency_key="k")
    assert again.replayed
    assert again.transaction_id == first.transaction_id
    assert books.probe.calls["charge_credits"] == 1


async def test_keys_of_others_are_not_found(books: Fronts) -> None:
    await books.one.add_credits(CACHED_USER, 5, idempotency_key="k")
    other = await books.one.add_credits("bob", 5, idempotency_key="k")
    assert (other.user_id, other.replayed) == ("bob", False)
    held = await books.one.reserve_credits(CACHED_USER, 5, "chat")
    assert held.reservation_id is not None
    await books.one.deduct_credits(CACHED_USER, held.reservation_id, 5, "k")
    assert (await books.one.deduct_credits("bob", held.reservation_id, 5, "k")).error == "reservation_not_found"


async def test_deleted_team_answers_nothing_again(books: Fronts) -> None:
    team = await books.one.create_team("red", 5)
    team_id = str(team.team_id)
    await books.one.add_team_member(team_id, CACHED_USER)
    for _ in range(2):
        assert (await books.one.deduct_team(team_id, CACHED_USER, 5, idempotency_key="k")).ok
    assert (await books.one.delete_team(team_id)).deleted
    assert (await books.other.deduct_team(team_id, CACHED_USER, 5, idempotency_key="k")).error == "team_not_found"


async def test_refusals_and_fresh_keys_are_not_kept(books: Fronts) -> None:
    assert (await books.one.charge_credits(CACHED_USER, 5000, idempotency_key="k")).error == "insufficient_credits"
    await books.one.charge_credits(CACHED_USER, 5, idempotency_key=new_key())
    assert not redis_server().execute("KEYS", f"{books.prefix}:*:r:*")
    await books.one.add_credits(CACHED_USER, 5000)
    assert (await books.one.charge_credits(CACHED_USER, 5000, idempotency_key="k")).ok


async def test_reserve_is_always_asked_of_the_inner_store(books: Fronts) -> None:
    """What has become of a reservation is part of its reply."""
    held = await books.one.reserve_credits(CACHED_USER, 5, "chat", idempotency_key="k")
    await books.one.release_reservation(CACHED_USER, str(held.reservation_id))
    again = await books.one.reserve_credits(CACHED_USER, 5, "chat", idempotency_key="k")
    assert (again.replayed, again.state) == (True, "released")
    assert books.probe.calls["reserve_credits"] == 2


async def test_expiry_in_a_retry_is_compared_by_the_inner_store(books: Fronts) -> None:
    for days in (1, 2):
        expires_at = books.clock() + timedelta(days=days)
        assert (await books.one.add_credits(CACHED_USER, 5, expires_at=expires_at, idempotency_key="k")).ok
    assert books.probe.calls["add_credits"] == 3


async def test_reply_is_kept_for_its_time_and_never_pickled(books: Fronts) -> None:
    await books.one.add_credits(CACHED_USER, 5, idempotency_key="k")
    (name,) = redis_server().execute("KEYS", f"{books.prefix}:*:r:*")
    assert 86_300 < redis_server().execute("TTL", name) <= 86_400
    for nonsense in ("", "[]", "null", '{"a": 1}', "[1, 2, 3]", b"\x80\x04K\x01.", "\xff"):
        redis_server().execute("SET", name, nonsense)
        assert (await books.other.add_credits(CACHED_USER, 5, idempotency_key="k")).replayed
    assert books.other.counters.replies == 0
