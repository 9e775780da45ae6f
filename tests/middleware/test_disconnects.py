"""Clients that leave at every moment, and providers that hang: the hold always ends, and rightly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

import pytest

from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, Books, Caller, app_sending, cost_of, scripted

STREAM = {**BODIES[CHAT], "stream": True}
EVENTS = 11
LEAVING = pytest.mark.parametrize("leaving", ["receive", "send"])


@LEAVING
@pytest.mark.parametrize("chunks", range(1, EVENTS))
@pytest.mark.parametrize("path", BODIES)
async def test_who_leaves_within_a_stream_pays_what_the_drained_rest_says(
    path: str, chunks: int, leaving: Any, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    body = {**BODIES[path], "stream": True}
    answer = await caller.post(path, body, leave_after_chunks=chunks, leaving=leaving)
    assert len(answer.chunks) == chunks
    assert await books.spent() == cost_of(body)
    assert not (await books.transactions())[0].estimated
    assert simulator.requests[-1].outcome == "completed"


@LEAVING
@pytest.mark.parametrize("chunks", range(1, EVENTS - 2))
async def test_without_draining_the_delivered_part_is_charged(
    chunks: int, leaving: Any, books: Books, simulator: ProviderSimulator
) -> None:
    scripted(simulator, text="w" * 8 * 20, chunk_delay_seconds=0.003)
    door = books.door(simulator.app, drain_seconds=0)
    answer = await Caller(door).post(CHAT, STREAM, leave_after_chunks=chunks, leaving=leaving)
    assert len(answer.chunks) == chunks
    given, piece = -(-len(json.dumps(STREAM)) // 4), 2 * 20 // 4
    # One more chunk may be on its way when the client leaves.
    assert given + chunks * piece <= await books.spent() <= given + (chunks + 1) * piece
    assert (await books.transactions())[0].estimated
    assert simulator.requests[-1].outcome == "aborted"


async def test_draining_ends(books: Books, simulator: ProviderSimulator) -> None:
    scripted(simulator, hang_after_events=3, text="w" * 160)
    door = books.door(simulator.app, drain_seconds=0.1)
    begun = asyncio.get_running_loop().time()
    await Caller(door).post(CHAT, STREAM, leave_after_chunks=2)
    assert 0.1 <= asyncio.get_running_loop().time() - begun < 1
    assert simulator.requests[-1].outcome == "aborted"
    assert (await books.transactions())[0].estimated


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_before_the_answer_began_pays_nothing(
    stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, delay_seconds=5)
    answer = await caller.post(CHAT, {**STREAM, "stream": stream}, leave_after_seconds=0.02)
    assert answer.status is None
    assert simulator.requests[-1].outcome == "aborted"
    assert await books.spent() == 0


@LEAVING
async def test_who_leaves_after_the_last_event_is_charged_normally(leaving: Any, books: Books, caller: Caller) -> None:
    answer = await caller.post(CHAT, STREAM, leave_after_chunks=10, leaving=leaving)
    assert answer.chunks[-1] == b"data: [DONE]\n\n"
    assert await books.spent() == cost_of(STREAM)
    assert not (await books.transactions())[0].estimated


async def test_who_leaves_while_the_request_is_read_holds_nothing(books: Books, simulator: ProviderSimulator) -> None:
    async def receive() -> dict[str, Any]:
        return next(messages)

    messages = iter([{"type": "http.request", "body": b'{"model"', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "user": "alice"}
    await books.door(simulator.app)(scope, receive, send)
    assert sent == []
    assert simulator.requests == []


async def test_a_request_cancelled_at_a_random_moment_leaves_no_hold(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    chance = random.Random(7)
    for _ in range(150):
        scripted(simulator, chunk_delay_seconds=0.0005)
        task = asyncio.ensure_future(caller.post(CHAT, STREAM))
        await asyncio.sleep(chance.random() * 0.012)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert (await books.store.get_available("alice")).held == 0
    for row in await books.transactions():
        assert row.estimated or row.charged == cost_of(STREAM)


async def test_a_provider_that_never_answers_is_given_up(books: Books, simulator: ProviderSimulator) -> None:
    scripted(simulator, delay_seconds=30)
    answer = await Caller(books.door(simulator.app, first_byte_seconds=0.05)).post(CHAT, STREAM)
    assert answer.status == 504
    assert answer.json["error"]["code"] == "upstream_timeout"
    assert await books.spent() == 0
    assert simulator.requests[-1].outcome == "aborted"


@pytest.mark.parametrize("events", [0, 4])
async def test_a_stream_that_falls_silent_is_charged_by_what_came(
    events: int, books: Books, simulator: ProviderSimulator
) -> None:
    scripted(simulator, hang_after_events=events, text="v" * 160)
    answer = await Caller(books.door(simulator.app, idle_seconds=0.05)).post(CHAT, STREAM)
    assert answer.status == 200
    assert not answer.ended
    assert len(answer.chunks) == events
    assert await books.spent() == -(-len(json.dumps(STREAM)) // 4) + 2 * 5 * events
    assert (await books.transactions())[0].estimated


async def test_an_app_that_catches_the_cancellation_is_given_up_all_the_same(books: Books) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)

    answer = await Caller(books.door(app, first_byte_seconds=0.03)).post(CHAT, STREAM)
    assert answer.status == 504
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_slow_stream_is_not_silent(books: Books, simulator: ProviderSimulator) -> None:
    scripted(simulator, chunk_delay_seconds=0.02)
    answer = await Caller(books.door(simulator.app, idle_seconds=0.08, first_byte_seconds=0.08)).post(CHAT, STREAM)
    assert answer.ended
    assert await books.spent() == cost_of(STREAM)


async def test_a_cancellation_from_outside_is_not_taken_for_a_timeout(
    books: Books, simulator: ProviderSimulator
) -> None:
    scripted(simulator, delay_seconds=30)
    task = asyncio.ensure_future(Caller(books.door(simulator.app)).post(CHAT, STREAM))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await books.spent() == 0


async def test_the_hold_of_a_long_stream_is_renewed(simulator: ProviderSimulator) -> None:
    from tests.middleware.support import open_books

    scripted(simulator, chunk_delay_seconds=0.25)
    async with open_books(ttl_seconds=1, grace_seconds=0) as books:
        await Caller(books.door(simulator.app)).post(CHAT, STREAM)
        (row,) = await books.transactions()
        assert not row.late
        assert row.charged == cost_of(STREAM)


async def test_an_app_that_ignores_the_client_is_read_to_its_end(books: Books) -> None:
    chunks = [b'data: {"choices":[{"delta":{"content":"abcd"},"finish_reason":"stop"}]}\n\n'] * 5
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    await Caller(books.door(app_sending([*chunks, last]), drain_seconds=0)).post(CHAT, STREAM, leave_after_chunks=1)
    assert await books.spent() == 9 + 2 * 5
