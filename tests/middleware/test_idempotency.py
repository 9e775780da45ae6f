"""`Idempotency-Key`: one call, one charge, whatever is repeated, and nobody else's answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ducto.middleware import Identity, InProcessAnswers, KeptAnswer
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, Books, Caller, cost_of, scripted

KEY = {"Idempotency-Key": "order-66"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_a_finished_call_is_answered_again_and_charged_once(
    path: str, stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    body = {**BODIES[path], "stream": stream}
    first = await caller.post(path, body, headers=KEY)
    assert "x-ducto-replayed" not in first.headers
    for _ in range(3):
        again = await caller.post(path, body, headers=KEY)
        assert again.status == 200
        assert again.body == first.body
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["x-ducto-replayed"] == "true"
        assert again.headers["x-ducto-reservation"] == first.headers["x-ducto-reservation"]
        assert again.headers["x-ducto-cost"] == str(cost_of(body))
    assert len(simulator.requests) == 1
    assert await books.spent() == cost_of(body)


@pytest.mark.parametrize("stream", [False, True])
async def test_concurrent_duplicates_run_once(
    stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, delay_seconds=0.05)
    body = {**BODIES[CHAT], "stream": stream}
    answers = await asyncio.gather(*(caller.post(CHAT, body, headers=KEY) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7  # type: ignore[type-var]
    refused = next(answer for answer in answers if answer.status == 409)
    assert refused.json["error"]["code"] == "call_in_flight"
    assert refused.headers["retry-after"] == "1"
    assert "x-should-retry" not in refused.headers
    assert len(simulator.requests) == 1
    assert (await caller.post(CHAT, body, headers=KEY)).headers["x-ducto-replayed"] == "true"
    assert await books.spent() == cost_of(body)


async def test_a_retry_after_a_failure_runs(books: Books, caller: Caller, simulator: ProviderSimulator) -> None:
    for _ in range(3):
        scripted(simulator, status=500)
        assert (await caller.post(CHAT, BODIES[CHAT], headers=KEY)).status == 500
    answer = await caller.post(CHAT, BODIES[CHAT], headers=KEY)
    assert answer.status == 200
    assert "x-ducto-replayed" not in answer.headers
    assert (await caller.post(CHAT, BODIES[CHAT], headers=KEY)).body == answer.body
    assert len(simulator.requests) == 4
    assert await books.spent() == cost_of(BODIES[CHAT])


async def test_a_key_is_tried_ten_times(books: Books, caller: Caller, simulator: ProviderSimulator) -> None:
    scripted_faults = 12
    for _ in range(scripted_faults):
        scripted(simulator, status=500)
    statuses = [(await caller.post(CHAT, BODIES[CHAT], headers=KEY)).status for _ in range(scripted_faults)]
    assert statuses == [500] * 10 + [409] * 2
    assert len(simulator.requests) == 10


async def test_another_body_under_the_same_key_is_422(books: Books, caller: Caller, simulator: Any) -> None:
    await caller.post(CHAT, BODIES[CHAT], headers=KEY)
    answer = await caller.post(CHAT, {**BODIES[CHAT], "temperature": 1}, headers=KEY)
    assert answer.status == 422
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json["error"]["code"] == "idempotency_mismatch"
    assert (await caller.post("/v1/completions", BODIES["/v1/completions"], headers=KEY)).status == 422
    assert len(simulator.requests) == 1


async def test_the_same_key_of_another_user_is_another_call(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, text="the secret of alice")
    first = await caller.post(CHAT, BODIES[CHAT], headers=KEY)
    other = await Caller(caller.app, user="bob").post(CHAT, BODIES[CHAT], headers=KEY)
    assert other.status == 200
    assert b"secret" not in other.body
    assert "x-ducto-replayed" not in other.headers
    assert other.headers["x-ducto-reservation"] != first.headers["x-ducto-reservation"]
    assert await books.spent("bob") == cost_of(BODIES[CHAT])
    for user, body in (("alice", first.body), ("bob", other.body)):
        again = await Caller(caller.app, user=user).post(CHAT, BODIES[CHAT], headers=KEY)
        assert again.headers["x-ducto-replayed"] == "true"
        assert again.body == body


async def test_the_same_key_of_another_member_of_the_team_is_another_call(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    team = (await books.manager.create_team("crew", 5_000)).team_id
    for member in ("alice", "bob"):
        await books.manager.add_team_member(team, member)
    for member in ("alice", "bob"):
        answer = await Caller(caller.app, user=Identity(member, team)).post(CHAT, BODIES[CHAT], headers=KEY)
        assert "x-ducto-replayed" not in answer.headers
    assert len(simulator.requests) == 2


async def test_without_a_kept_answer_the_receipt_is_given(books: Books, simulator: ProviderSimulator) -> None:
    caller = Caller(books.door(simulator.app, answers=None))
    first = await caller.post(CHAT, BODIES[CHAT], headers=KEY)
    again = await caller.post(CHAT, BODIES[CHAT], headers=KEY)
    assert again.status == 409
    assert again.headers["x-should-retry"] == "false"
    error = again.json["error"]
    assert error["code"] == "already_settled"
    assert error["receipt"]["charged"] == cost_of(BODIES[CHAT])
    assert error["receipt"]["reservation_id"] == first.headers["x-ducto-reservation"]
    assert len(simulator.requests) == 1


async def test_an_answer_that_broke_off_is_not_kept(books: Books, simulator: ProviderSimulator) -> None:
    scripted(simulator, hang_after_events=3)
    caller = Caller(books.door(simulator.app, idle_seconds=0.05))
    body = {**BODIES[CHAT], "stream": True}
    await caller.post(CHAT, body, headers=KEY)
    again = await caller.post(CHAT, body, headers=KEY)
    assert again.status == 409
    assert again.json["error"]["code"] == "already_settled"


async def test_who_left_gets_the_drained_answer_on_his_retry(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    body = {**BODIES[CHAT], "stream": True}
    await caller.post(CHAT, body, headers=KEY, leave_after_chunks=2)
    again = await caller.post(CHAT, body, headers=KEY)
    assert again.status == 200
    assert again.body.endswith(b"data: [DONE]\n\n")
    assert again.body.count(b"word") == 8
    assert len(simulator.requests) == 1


async def test_a_broken_cache_costs_nothing_but_the_replay(
    books: Books, simulator: ProviderSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def get(self, key: str) -> KeptAnswer | None:
            raise ConnectionError("no cache")

        async def put(self, key: str, answer: KeptAnswer) -> None:
            raise ConnectionError("no cache")

    caller = Caller(books.door(simulator.app, answers=Broken()))
    with caplog.at_level("CRITICAL"):
        assert (await caller.post(CHAT, BODIES[CHAT], headers=KEY)).status == 200
        assert (await caller.post(CHAT, BODIES[CHAT], headers=KEY)).status == 409


@pytest.mark.parametrize("key", ["", " padded", "a" * 253, "x\x7fy"])
async def test_a_bad_key_is_400(key: str, books: Books, caller: Caller, simulator: ProviderSimulator) -> None:
    assert (await caller.post(CHAT, BODIES[CHAT], headers={"Idempotency-Key": key})).status == 400
    assert simulator.requests == []


async def test_two_keys_are_400(books: Books, caller: Caller) -> None:
    pairs = [("Idempotency-Key", "a"), ("idempotency-key", "a")]
    assert (await caller.post(CHAT, BODIES[CHAT], headers=pairs)).status == 400


async def test_answers_are_bounded_by_bytes_and_age() -> None:
    now = [0.0]
    answers = InProcessAnswers(max_bytes=3_000, max_age_seconds=10, clock=lambda: now[0])
    small = KeptAnswer(200, ((b"content-type", b"text/plain"),), b"x" * 500)
    for name in "abcd":
        await answers.put(name, small)
        assert answers.size_bytes <= 3_000
    assert await answers.get("a") is None
    assert await answers.get("d") == small
    await answers.put("d", KeptAnswer(200, (), b"x" * 5_000))
    assert await answers.get("d") is None
    now[0] = 11
    assert await answers.get("c") is None
    assert answers.size_bytes == 0
