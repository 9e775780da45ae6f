"""Without Redis, or with one that fails, every answer is that of the inner store, in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.exceptions

from ducto.errors import ConfigError
from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.testing.servers.redis import RedisServer, redis_cluster, redis_server, start_redis
from tests.redis.cache_support import CACHED_USER, PLANS, Fronts, fronts

_BUDGET_SECONDS = 0.1


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


@pytest.fixture
async def books(server: RedisServer) -> AsyncIterator[Fronts]:
    """What is kept, on a Redis that something will happen to."""
    async with fronts(server.url, budget_seconds=_BUDGET_SECONDS, open_seconds=0.1) as made:
        await made.one.set_active_pricing(PLANS)
        await made.one.add_credits(CACHED_USER, 100, idempotency_key="k")
        for store in made.opened:
            await store.get_balance(CACHED_USER)
        yield made


async def everything(store: RedisCacheStore) -> list[Any]:
    """An answer of each kind that Redis has a part in."""
    return [
        await store.get_balance(CACHED_USER),
        await store.get_available(CACHED_USER),
        await store.check_allowance(CACHED_USER),
        await store.get_user_plan(CACHED_USER),
        await store.list_plans(),
        (await store.add_credits(CACHED_USER, 100, idempotency_key="k")).transaction_id,
        (await store.reserve_credits(CACHED_USER, 1000, "chat")).message,
        (await store.add_credits(CACHED_USER, 1)).new_balance,
        (await store.get_balance(CACHED_USER)).balance,
        (await store.adjust_credits(CACHED_USER, 1, direction="debit")).new_balance,
        (await store.get_balance(CACHED_USER)).balance,
    ]


async def test_redis_that_is_gone_changes_no_answer(books: Fronts, server: RedisServer) -> None:
    before = await everything(books.one)
    server.kill()
    began = time.monotonic()
    for _ in range(20):
        assert await everything(books.one) == before
    # The first that finds out may wait for the budget, and so may a probe now and then; nobody else.
    assert time.monotonic() - began < 20 * _BUDGET_SECONDS
    assert books.one.counters.fallbacks > 0
    server.start()


async def test_redis_that_hangs_costs_its_budget_once(books: Fronts, server: RedisServer) -> None:
    before = await everything(books.one)
    server.pause()
    try:
        began = time.monotonic()
        assert await everything(books.one) == before
        # What is under way when it stops, and again when the circuit is tried.
        assert time.monotonic() - began < 10 * _BUDGET_SECONDS
    finally:
        server.resume()


async def test_writer_reads_his_write_though_redis_was_not_told(books: Fronts, server: RedisServer) -> None:
    server.pause()
    await books.one.get_balance("somebody else")  # From now on it is not even tried.
    assert (await books.one.add_credits(CACHED_USER, 7)).ok
    server.resume()
    assert server.execute("HEXISTS", books.one._keys.user(CACHED_USER), "balance")
    for _ in range(20):
        assert (await books.one.get_balance(CACHED_USER)).balance == 107
    await _until_answered(books.one)
    assert (await books.one.get_balance(CACHED_USER)).balance == 107
    # Telling Redis was made up for by that read, so that the others see it too, long before ttl_seconds.
    assert (await books.other.get_balance(CACHED_USER)).balance == 107


async def test_hold_of_an_unknown_outcome_is_made_up_for(books: Fronts, server: RedisServer) -> None:
    server.pause()
    await books.one.get_balance("somebody else")
    await books.one._cache.perhaps_written([books.one._keys.user(CACHED_USER)])
    server.resume()
    await _until_answered(books.one)
    await books.one.get_balance(CACHED_USER)
    assert server.execute("KEYS", f"{books.prefix}:*:h")


async def test_restarted_redis_is_used_again(books: Fronts, server: RedisServer) -> None:
    server.restart_empty()
    assert (await books.one.get_balance(CACHED_USER)).balance == 100
    await _until_answered(books.one)
    for _ in range(2):
        assert (await books.one.get_balance(CACHED_USER)).balance == 100
    assert (await books.one.add_credits(CACHED_USER, 100, idempotency_key="k")).replayed


async def _until_answered(store: RedisCacheStore) -> None:
    """Until Redis has served something to it again."""
    hits = store.counters.hits
    deadline = time.monotonic() + 10.0
    while store.counters.hits == hits:
        await store.get_balance("somebody else")
        await asyncio.sleep(0.005)
        assert time.monotonic() < deadline


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
async def test_full_redis_changes_no_answer(policy: str) -> None:
    with start_redis(maxmemory_mb=2, eviction_policy=policy) as server:
        async with fronts(server.url) as books:
            await books.one.get_balance(CACHED_USER)
            filling = "x" * 10_000
            with contextlib.suppress(redis.exceptions.OutOfMemoryError):
                for number in range(200):
                    server.execute("SET", f"filling:{number}", filling)
            for number in range(1, 50):
                # What is kept is dropped, also where nothing more can be kept.
                assert (await books.one.add_credits(CACHED_USER, 1)).new_balance == number
                assert (await books.other.get_balance(CACHED_USER)).balance == number


async def test_nonsense_in_redis_is_no_answer(books: Fronts, server: RedisServer) -> None:
    key = books.one._keys.user(CACHED_USER)
    for nonsense in ("", "null", "[1]", "[0, 99999999999999, null, {}]", b"\xff", '["a", "b", 1, 2]'):
        server.execute("HSET", key, "balance", nonsense)
        assert (await books.other.get_balance(CACHED_USER)).balance == 100


async def test_key_of_another_type_is_no_answer(books: Fronts, server: RedisServer) -> None:
    server.execute("SET", books.one._keys.user(CACHED_USER), "not a hash")
    for store in books.opened:
        assert (await store.get_balance(CACHED_USER)).balance == 100
    assert (await books.one.add_credits(CACHED_USER, 1)).ok  # Which deletes it.
    assert server.execute("EXISTS", books.one._keys.user(CACHED_USER)) == 0


async def test_cluster_serves_all_of_an_account() -> None:
    with redis_cluster() as servers:
        async with fronts(servers.url) as books:
            await books.one.set_active_pricing(PLANS)
            team_id = str((await books.one.create_team("red", 50)).team_id)
            for number in range(12):
                user_id = f"user{number}"
                assert (await books.one.add_credits(user_id, 10, idempotency_key="k")).ok
                await books.one.add_team_member(team_id, user_id)
                assert (await books.one.transfer_credits(user_id, CACHED_USER, 3)).ok
                await books.one.get_balance(user_id)
                await books.one.reserve_credits(user_id, 1000, "chat")
                await books.one.deduct_team(team_id, user_id, 1000)
                loads = books.probe.calls.total()
                assert (await books.other.get_balance(user_id)).balance == 7
                assert (await books.other.add_credits(user_id, 10, idempotency_key="k")).replayed
                assert (await books.other.reserve_credits(user_id, 1000, "chat")).error == "insufficient_credits"
                assert (await books.other.deduct_team(team_id, user_id, 1000)).error == "insufficient_credits"
                assert books.probe.calls.total() == loads
            assert (await books.other.get_balance(CACHED_USER)).balance == 36
            assert [store.counters.fallbacks for store in books.opened] == [0, 0]


async def test_settings_that_cannot_be() -> None:
    for options in ({"ttl_seconds": 0}, {"reply_ttl_seconds": 0}, {"prefix": ""}, {"prefix": "a{b"}):
        with pytest.raises(ConfigError):
            RedisCacheStore(MemoryStore(), redis_server().url, **options)  # type: ignore[arg-type]


async def test_closing_leaves_what_was_handed_in() -> None:
    async with fronts() as books:
        await books.one.aclose()
        await books.one.aclose()
        assert (await books.one.get_balance(CACHED_USER)).balance == 0
        assert books.one.counters.fallbacks == 0
        async with RedisCacheStore(books.probe, redis_server().url, owns_inner=True) as owner:
            await owner.get_balance(CACHED_USER)
        await owner.get_balance(CACHED_USER)
        assert owner.counters.fallbacks == 1
