"""Clamp to afford: the output limit is lowered to what can be paid, and said so; under the floor it is refused."""

from __future__ import annotations

import json

import pytest

from ducto.errors import ConfigError
from ducto.middleware import ClampToAfford
from ducto.models import SpendCap
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, START, Books, Caller

LIMITS = {
    CHAT: "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}


async def leave_with(books: Books, credits_left: int) -> None:
    await books.manager.adjust_credits("alice", START - credits_left, direction="debit", idempotency_key="poor")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", LIMITS)
async def test_the_limit_is_lowered_to_what_can_be_paid(
    path: str, stream: bool, books: Books, simulator: ProviderSimulator
) -> None:
    body = {**BODIES[path], "stream": stream}
    size = len(json.dumps(body))
    await leave_with(books, size + 2 * 20 + 1)
    answer = await Caller(books.door(simulator.app, clamp=ClampToAfford())).post(path, body)
    assert answer.status == 200
    assert answer.headers["x-ducto-clamped"] == "20"
    assert answer.headers["x-ducto-held"] == str(size + 40)
    assert simulator.requests[-1].body[LIMITS[path]] == 20
    assert simulator.requests[-1].headers["content-length"] == str(len(simulator.requests[-1].raw_body))


async def test_several_choices_share_what_can_be_paid(books: Books, simulator: ProviderSimulator) -> None:
    body = {"model": "m", "messages": [], "n": 4}
    await leave_with(books, len(json.dumps(body)) + 2 * 4 * 30)
    answer = await Caller(books.door(simulator.app, clamp=ClampToAfford())).post(CHAT, body)
    assert answer.headers["x-ducto-clamped"] == "30"
    assert simulator.requests[-1].body["max_completion_tokens"] == 30


async def test_a_cap_clamps_too(books: Books, simulator: ProviderSimulator) -> None:
    limit = len(json.dumps(BODIES[CHAT])) + 2 * 17
    await books.manager.set_spend_cap(SpendCap(user_id="alice", cap_type="monthly", limit=limit, action="deny"))
    answer = await Caller(books.door(simulator.app, clamp=ClampToAfford())).post(CHAT, BODIES[CHAT])
    assert answer.headers["x-ducto-clamped"] == "17"


async def test_under_the_floor_it_is_refused(books: Books, simulator: ProviderSimulator) -> None:
    await leave_with(books, len(json.dumps(BODIES[CHAT])) + 2 * 20)
    caller = Caller(books.door(simulator.app, clamp=ClampToAfford(floor_tokens=21)))
    assert (await caller.post(CHAT, BODIES[CHAT])).status == 402
    assert simulator.requests == []
    assert (await Caller(books.door(simulator.app)).post(CHAT, BODIES[CHAT])).status == 402


async def test_who_can_pay_is_left_alone(books: Books, simulator: ProviderSimulator) -> None:
    raw = json.dumps(BODIES[CHAT]).encode()
    answer = await Caller(books.door(simulator.app, clamp=ClampToAfford())).post(CHAT, raw)
    assert "x-ducto-clamped" not in answer.headers
    assert simulator.requests[-1].raw_body == raw


async def test_embeddings_have_nothing_to_clamp(books: Books, simulator: ProviderSimulator) -> None:
    await leave_with(books, 3)
    caller = Caller(books.door(simulator.app, clamp=ClampToAfford()))
    assert (await caller.post("/v1/embeddings", {"model": "emb", "input": "x"})).status == 402


async def test_a_repeated_key_finds_its_clamped_answer(books: Books, simulator: ProviderSimulator) -> None:
    await leave_with(books, len(json.dumps(BODIES[CHAT])) + 2 * 20)
    caller = Caller(books.door(simulator.app, clamp=ClampToAfford()))
    first = await caller.post(CHAT, BODIES[CHAT], headers={"Idempotency-Key": "k"})
    again = await caller.post(CHAT, BODIES[CHAT], headers={"Idempotency-Key": "k"})
    assert again.headers["x-ducto-replayed"] == "true"
    assert again.body == first.body
    assert len(simulator.requests) == 1


def test_the_floor_is_a_whole_number_of_tokens() -> None:
    with pytest.raises(ConfigError):
        ClampToAfford(floor_tokens=0)
