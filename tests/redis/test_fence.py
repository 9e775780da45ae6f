"""What was loaded before a write is never kept or served after it, and what is kept is one load for all."""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ducto.errors import ArgumentError, StoreError, TeamNotFoundError
from ducto.models import AvailableResult
from ducto.stores.redis import link as redis_link
from ducto.testing.servers.redis import redis_server
from tests.redis.cache_support import CACHED_USER, Fronts, fronts

_SCRIPTS = redis_link._SCRIPTS


async def balance_after_raced_write(books: Fronts) -> int:
    """What `one` reads after a write of `other` that was answered while `one` had loaded and not yet kept."""
    loaded, may_keep = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        loaded.set()
        await may_keep.wait()

    books.probe.after["get_balance"] = pause
    slow = asyncio.create_task(books.one.get_balance(CACHED_USER))
    await loaded.wait()
    assert (await books.other.add_credits(CACHED_USER, 7)).ok
    may_keep.set()
    await slow
    return (await books.one.get_balance(CACHED_USER)).balance


async def test_loader_that_raced_with_a_write_does_not_put_the_old_value_back() -> None:
    async with fronts() as books:
        assert await balance_after_raced_write(books) == 7


async def test_without_the_token_the_old_value_is_put_back(tmp_path: Path) -> None:
    """The race above is one: a fill that does not look at the token loses it."""
    scripts = shutil.copytree(_SCRIPTS, tmp_path / "scripts")
    fill = scripts / "account_fill.lua"
    fenced = fill.read_text()
    unfenced = fenced.replace("redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] or", "")
    assert unfenced != fenced
    fill.write_text(unfenced)
    async with fronts(scripts=scripts) as books:
        assert await balance_after_raced_write(books) == 0


async def test_loader_that_raced_with_a_flush_keeps_nothing() -> None:
    async with fronts() as books:
        loaded, may_keep = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            loaded.set()
            await may_keep.wait()

        books.probe.after["get_balance"] = pause
        slow = asyncio.create_task(books.one.get_balance(CACHED_USER))
        await loaded.wait()
        for key in redis_server().execute("KEYS", f"{books.prefix}:*"):
            redis_server().execute("DEL", key)
        may_keep.set()
        await slow
        books.probe.calls.clear()
        await books.other.get_balance(CACHED_USER)
        assert books.probe.calls["get_balance"] == 1


@pytest.mark.parametrize("verb", ["get_balance", "get_available", "check_allowance", "get_user_plan"])
async def test_read_is_served_to_all_processes_until_the_account_is_written_to(verb: str) -> None:
    async with fronts() as books:
        first = await getattr(books.one, verb)(CACHED_USER)
        for store in (books.one, books.other):
            assert await getattr(store, verb)(CACHED_USER) == first
        assert books.probe.calls[verb] == 1
        assert books.other.counters.misses == 0
        await books.one.add_credits(CACHED_USER, 1)
        await getattr(books.other, verb)(CACHED_USER)
        assert books.probe.calls[verb] == 2


async def test_many_readers_are_one_load() -> None:
    async with fronts() as books:
        books.probe.after["get_available"] = lambda: asyncio.sleep(0.03)
        reads = [store.get_available(CACHED_USER) for store in books.opened for _ in range(50)]
        assert len(set(map(AvailableResult.model_dump_json, await asyncio.gather(*reads)))) == 1
        assert books.probe.calls["get_available"] == 1


async def test_reader_does_not_wait_long_for_a_loader_that_hangs() -> None:
    async with fronts() as books:
        hangs = asyncio.Event()

        async def hang_once() -> None:
            if books.probe.calls["get_balance"] == 1:
                await hangs.wait()

        books.probe.before["get_balance"] = hang_once
        stuck = asyncio.create_task(books.one.get_balance(CACHED_USER))
        await asyncio.sleep(0.05)
        for store in (books.one, books.other):
            async with asyncio.timeout(1.0):
                assert (await store.get_balance(CACHED_USER)).balance == 0
        stuck.cancel()
        await asyncio.wait((stuck,))


async def test_cancelled_writer_has_dropped_what_was_kept() -> None:
    async with fronts() as books:
        await books.other.get_balance(CACHED_USER)
        written, may_answer, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            written.set()
            await may_answer.wait()
            answered.set()

        books.probe.after["add_credits"] = pause
        writer = asyncio.create_task(books.one.add_credits(CACHED_USER, 7))
        await written.wait()
        writer.cancel()
        await asyncio.wait((writer,))
        assert writer.cancelled()
        may_answer.set()
        await books.one.aclose()  # Waits for what the caller does not wait for any more.
        assert answered.is_set()
        assert (await books.other.get_balance(CACHED_USER)).balance == 7


async def test_nothing_is_kept_while_the_outcome_of_a_write_is_not_known() -> None:
    async with fronts() as books:
        await books.one.get_balance(CACHED_USER)

        async def lose_the_answer() -> None:
            raise StoreError("The server did not answer.", retryable=True)

        books.probe.before["add_credits"] = lose_the_answer
        with pytest.raises(StoreError):
            await books.one.add_credits(CACHED_USER, 7)
        for store in (books.one, books.other):
            assert (await store.get_balance(CACHED_USER)).balance == 0
        # The call takes effect only now, and nobody tells Redis.
        await books.probe.inner.add_credits(CACHED_USER, 7)
        for store in (books.one, books.other):
            assert (await store.get_balance(CACHED_USER)).balance == 7
        (hold,) = redis_server().execute("KEYS", f"{books.prefix}:*:h")
        assert 10_000 < redis_server().execute("PTTL", hold) <= 15_000
        redis_server().execute("DEL", hold)
        await books.one.get_balance(CACHED_USER)
        await books.other.get_balance(CACHED_USER)
        assert books.other.counters.hits == 1


async def test_refused_write_drops_nothing() -> None:
    async with fronts() as books:
        await books.one.get_balance(CACHED_USER)
        assert (await books.one.charge_credits(CACHED_USER, 5, idempotency_key="k")).error == "insufficient_credits"
        await books.one.get_balance(CACHED_USER)
        assert books.probe.calls["get_balance"] == 1


async def test_refusals_of_reads_are_those_of_the_inner_store() -> None:
    async with fronts() as books:
        for user_id in ("", " x", "a\x00", "x" * 201, 5, None):
            with pytest.raises(ArgumentError):
                await books.one.get_balance(user_id)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(TeamNotFoundError):
                await books.one.get_available(CACHED_USER, team_id="nobody")
        team = await books.probe.inner.create_team("red", 5)
        assert team.team_id is not None
        assert (await books.one.get_available(CACHED_USER, team_id=team.team_id)).user_id == CACHED_USER
        assert (await books.other.get_available("bob", team_id=team.team_id)).user_id == "bob"
        assert books.probe.calls["get_available"] == 3


async def test_ids_do_not_collide() -> None:
    ids = ("a{b", "a}b", "a%7Bb", "a%b", "ä", "a:h", "a b", "🟢")
    async with fronts() as books:
        for number, user_id in enumerate(ids, start=1):
            await books.one.add_credits(user_id, number)
            await books.one.get_balance(user_id)
        for number, user_id in enumerate(ids, start=1):
            assert (await books.other.get_balance(user_id)).balance == number
        assert books.other.counters.hits == len(ids)


async def test_what_changes_by_itself_is_seen_in_time_and_not_before() -> None:
    async with fronts() as books:
        start = books.clock()
        await books.one.add_credits(CACHED_USER, 9, expires_at=start + timedelta(seconds=60))
        for seconds, balance in ((0, 9), (58, 9), (59.5, 9), (60, 0), (10, 9), (61, 0), (30, 9)):
            books.clock.set(start + timedelta(seconds=seconds))
            assert [(await store.get_balance(CACHED_USER)).balance for store in books.opened] == [balance] * 2


async def test_process_whose_clock_is_behind_does_not_see_the_future() -> None:
    async with fronts() as books:
        start = books.clock()
        await books.one.add_credits(CACHED_USER, 9, expires_at=start + timedelta(seconds=60))
        books.clock.set(start + timedelta(seconds=61))
        assert (await books.one.get_balance(CACHED_USER)).balance == 0
        books.clock.set(start)
        late = await books.open(redis_server().url)
        assert (await late.get_balance(CACHED_USER)).balance == 9


async def test_what_was_kept_before_the_clock_was_set_back_is_not_believed() -> None:
    """What was booked in the time that is gone stays booked: the time of an account never goes back."""
    async with fronts() as books:
        start = books.clock()
        await books.one.add_credits(CACHED_USER, 9, expires_at=start + timedelta(seconds=60))
        assert (await books.one.get_balance(CACHED_USER)).balance == 9
        books.clock.set(start + timedelta(seconds=61))
        await books.one.get_balance("somebody else")
        assert (await books.probe.inner.sweep_expired_credits()).amount == 9
        books.clock.set(start + timedelta(seconds=10))
        for _ in range(2):
            assert (await books.one.get_balance(CACHED_USER)).balance == 0
        assert (await books.other.get_balance(CACHED_USER)).balance == 0


async def test_month_turns_for_the_allowance() -> None:
    async with fronts() as books:
        await books.one.set_active_pricing({"plans": {"free": {"free_allowance": 10}}, "default_plan": "free"})
        await books.one.increment_usage_window(CACHED_USER, "free", 4)
        assert (await books.one.check_allowance(CACHED_USER)).remaining == 6
        books.clock.advance(31 * 86_400)
        assert (await books.other.check_allowance(CACHED_USER)).remaining == 10


async def test_store_that_cannot_say_is_not_believed_for_long() -> None:
    async with fronts() as books:
        inner = books.probe.inner.get_available

        async def vague(user_id: str, *, team_id: str | None = None) -> AvailableResult:
            return (await inner(user_id, team_id=team_id)).model_copy(update={"stable_until": None})

        books.probe.inner.get_available = vague  # type: ignore[method-assign]
        for seconds, loads in ((0, 1), (0.5, 1), (0.6, 2)):
            books.clock.advance(seconds)
            await books.one.get_available(CACHED_USER)
            assert books.probe.calls["get_available"] == loads


async def test_nothing_is_older_than_ttl_seconds() -> None:
    """Also what is read all the time, and what somebody writes who does not pass this Redis."""
    async with fronts(ttl_seconds=0.3) as books:
        await books.one.get_balance(CACHED_USER)
        await books.probe.inner.add_credits(CACHED_USER, 7)
        began = time.monotonic()
        while (await books.one.get_balance(CACHED_USER)).balance != 7:
            assert time.monotonic() - began < 2.0
        assert books.one.counters.hits > 3


async def test_plan_depends_on_the_pricing_that_is_active() -> None:
    async with fronts() as books:
        for allowance in (10, 20):
            config = {"plans": {"free": {"free_allowance": allowance}}, "default_plan": "free"}
            await books.one.set_active_pricing(config)
            for store in books.opened:
                assert (await store.get_user_plan(CACHED_USER)).free_allowance == allowance
                assert (await store.check_allowance(CACHED_USER)).allowance == allowance
        assert books.probe.calls["get_user_plan"] == 2
