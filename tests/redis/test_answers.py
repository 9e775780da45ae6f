"""Kept answers in Redis: any replica answers again, and without Redis a retry is told that it was charged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware import KeptAnswer, MeteringMiddleware
from ducto.middleware.redis_answers import RedisAnswers
from ducto.stores.redis.link import RedisLink
from ducto.testing.servers.redis import RedisServer, redis_server, start_redis
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, Books, Caller, cost_of, open_books, user_of

KEY = {"Idempotency-Key": "order-66"}
ANSWER = KeptAnswer(200, ((b"content-type", b"audio/mpeg"), (b"x-odd", bytes(range(128, 256)))), bytes(range(256)) * 9)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    return redis_server()


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    async with open_books() as opened:
        yield opened


class Replicas:
    """Gateways on the same books and the same Redis, each with a manager and connections of its own."""

    def __init__(self, books: Books, simulator: ProviderSimulator, stack: AsyncExitStack, prefix: str) -> None:
        self._books = books
        self._simulator = simulator
        self._stack = stack
        self._prefix = prefix

    async def start(self, server: RedisServer, **options: Any) -> Caller:
        manager = await self._stack.enter_async_context(CreditManager(self._books.store, maintain_every_seconds=None))
        link = RedisLink(server.url, budget_seconds=options.pop("budget_seconds", 2.0), open_seconds=0.05)
        answers = RedisAnswers(link, prefix=self._prefix, **options)
        self._stack.push_async_callback(link.aclose)
        return Caller(MeteringMiddleware(self._simulator.app, manager, identify=user_of, answers=answers))


@pytest.fixture
async def replicas(books: Books) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(books, ProviderSimulator(), stack, f"t{uuid4().hex[:8]}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_another_replica_answers_again(
    path: str, stream: bool, books: Books, replicas: Replicas, server: RedisServer
) -> None:
    one, other = await replicas.start(server), await replicas.start(server)
    body = {**BODIES[path], "stream": stream}
    first = await one.post(path, body, headers=KEY)
    for caller in (other, one):
        again = await caller.post(path, body, headers=KEY)
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["x-ducto-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["x-ducto-cost"] == str(cost_of(body))
    assert await books.spent() == cost_of(body)


async def test_nobody_else_gets_the_answer(replicas: Replicas, server: RedisServer) -> None:
    one, other = await replicas.start(server), await replicas.start(server)
    first = await one.post(CHAT, BODIES[CHAT], headers=KEY)
    theirs = await Caller(other.app, user="bob").post(CHAT, BODIES[CHAT], headers=KEY)
    assert "x-ducto-replayed" not in theirs.headers
    assert theirs.headers["x-ducto-reservation"] != first.headers["x-ducto-reservation"]


@pytest.mark.parametrize("fault", ["stopped", "paused", "restarted empty"])
async def test_without_redis_a_retry_is_told_that_it_was_charged(
    fault: str, books: Books, replicas: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    with start_redis() as server:
        one = await replicas.start(server, budget_seconds=0.5)
        assert (await one.post(CHAT, BODIES[CHAT], headers=KEY)).status == 200
        assert (await one.post(CHAT, BODIES[CHAT], headers=KEY)).status == 200
        if fault == "stopped":
            server.kill()
        elif fault == "paused":
            server.pause()
        else:
            server.restart_empty()
        again = await one.post(CHAT, BODIES[CHAT], headers=KEY)
        assert again.status == 409
        assert again.json["error"]["code"] == "already_settled"
        assert again.json["error"]["receipt"]["charged"] == cost_of(BODIES[CHAT])
        other = {"Idempotency-Key": "order-67"}
        assert (await one.post(CHAT, BODIES[CHAT], headers=other)).status == 200
        if fault == "paused":
            server.resume()
    assert await books.spent() == 2 * cost_of(BODIES[CHAT])
    assert not [record for record in caplog.records if record.exc_info]


async def test_an_answer_comes_back_as_it_was(server: RedisServer) -> None:
    link = RedisLink(server.url, budget_seconds=2.0)
    try:
        answers = RedisAnswers(link, prefix=f"t{uuid4().hex[:8]}")
        assert await answers.get("a") is None
        await answers.put("a", ANSWER)
        assert await answers.get("a") == ANSWER
        empty = KeptAnswer(204, (), b"")
        await answers.put("a", empty)
        assert await answers.get("a") == empty
        await answers.aclose()  # The link is its owner's.
        assert await answers.get("a") == empty
    finally:
        await link.aclose()


async def test_answers_are_bounded_by_bytes_and_age(server: RedisServer) -> None:
    prefix = f"t{uuid4().hex[:8]}"
    answers = RedisAnswers(server.url, prefix=prefix, max_age_seconds=60, max_bytes_each=ANSWER.size_bytes - 1)
    try:
        await answers.put("large", ANSWER)
        await answers.put("small", KeptAnswer(200, (), b"small"))
    finally:
        await answers.aclose()
    kept = server.execute("KEYS", f"{prefix}:*")
    assert kept == [f"{prefix}:1:answer:small".encode()]
    assert 0 < server.execute("PTTL", kept[0]) <= 60_000
    assert b"small" in server.execute("GET", kept[0])
    with pytest.raises(ConfigError):
        RedisAnswers(server.url, max_age_seconds=0)
