"""A Redis that stops, hangs, is slow or comes back: what callers wait, and that no answer is ever another's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio

from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.testing.servers.processes import free_port
from ducto.testing.servers.redis import RedisServer, start_redis
from tests.redis.link_support import BUSY, answered, link_to, proxy_to, until


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "busy.lua").write_text(BUSY)
    return tmp_path


async def _refused(link: RedisLink) -> float:
    """How long a refusal took."""
    began = time.monotonic()
    with pytest.raises(RedisUnavailable):
        await link.command("GET", "a")
    return time.monotonic() - began


async def test_a_stopped_process_costs_a_budget_once_and_is_found_again(server: RedisServer) -> None:
    async with link_to(server.url, budget_seconds=0.05) as link:
        await link.command("SET", "a", 1)
        server.pause()
        try:
            began = time.monotonic()
            found = await asyncio.gather(*(link.command("GET", "a") for _ in range(300)), return_exceptions=True)
            assert 0.045 < time.monotonic() - began < 0.2
            assert all(isinstance(each, RedisUnavailable) for each in found)
            await until(lambda: not link.available, seconds=0.2)
            assert link.counters.failures == 300
            asked = link.counters.commands
            assert max([await _refused(link) for _ in range(50)]) < 0.03
            assert link.counters.skipped == 50
            assert link.counters.commands == asked
            await asyncio.sleep(0.5)  # Several probes, none of which is answered.
            assert not link.available
        finally:
            server.resume()
        await until(lambda: link.available, seconds=1)
        assert await link.command("GET", "a") == b"1"


async def test_the_budget_counts_from_being_handed_in_not_from_being_sent(server: RedisServer, scripts: Path) -> None:
    async with link_to(server.url, lanes=1, scripts=scripts, budget_seconds=0.4) as link:
        await link.script("busy", "a", 1)
        began = time.monotonic()
        slow = asyncio.create_task(link.script("busy", "a", 300))
        await asyncio.sleep(0.05)
        behind = asyncio.create_task(link.script("busy", "b", 300))  # Sent at 300 ms, answered at 600 ms.
        assert await slow == b"a"
        with pytest.raises(RedisUnavailable, match="within 400 ms"):
            await behind
        assert 0.44 < time.monotonic() - began < 0.58
        # It had no whole budget, so it says nothing against Redis: the circuit stays closed.
        assert link.available
        assert await link.command("PING") == b"PONG"


async def test_no_answer_is_ever_that_of_another_command(server: RedisServer, scripts: Path) -> None:
    chance = random.Random(7)
    keys = [f"key-{number}" for number in range(50)]
    wrong: list[tuple[str, bytes]] = []
    right = 0

    async with link_to(server.url, scripts=scripts, budget_seconds=0.02, open_seconds=0.03) as link:
        for key in keys:
            await answered(link, "SET", key, f"value of {key}")
        ends = time.monotonic() + 3

        async def ask() -> None:
            nonlocal right
            while time.monotonic() < ends:
                key = chance.choice(keys)
                try:
                    # Some callers give up in the middle, too.
                    async with asyncio.timeout(chance.choice([None, 0.001, 0.015])):
                        found = await link.command("GET", key)
                except (RedisUnavailable, TimeoutError):
                    await asyncio.sleep(0.001)
                    continue
                right += 1
                if found != f"value of {key}".encode():
                    wrong.append((key, found))
                await asyncio.sleep(0)

        async def hold_up() -> None:
            while time.monotonic() < ends:
                await asyncio.sleep(chance.uniform(0.02, 0.2))
                try:
                    await link.script("busy", "x", chance.randint(10, 60))
                except RedisUnavailable:
                    continue

        await asyncio.gather(*(ask() for _ in range(30)), hold_up())
        assert link.counters.failures > 30  # Else it was no test.
        await until(lambda: link.available)
    assert wrong == []
    assert right > 1000


async def test_a_killed_server_is_found_again_with_its_scripts(server: RedisServer, scripts: Path) -> None:
    async with link_to(server.url, scripts=scripts) as link:
        assert await link.script("busy", "a", 0) == b"a"
        assert await link.command("SET", "a", 1) == b"OK"
        server.kill()
        assert await _refused(link) < 0.1
        assert await _refused(link) < 0.03
        server.start()
        assert await answered(link, "GET", "a") is None
        assert await link.script("busy", "a", 0) == b"a"
        assert await link.command("SET", "a", 1) == b"OK"


async def test_a_restart_while_nobody_asks_is_not_even_noticed(server: RedisServer) -> None:
    async with link_to(server.url) as link:
        await link.command("SET", "a", 1)
        server.restart_empty()
        assert await link.command("GET", "a") is None
        assert link.counters.failures == 0


async def test_where_nobody_listens_the_circuit_opens_at_once() -> None:
    async with link_to(f"redis://127.0.0.1:{free_port()}/0", budget_seconds=0.05) as link:
        assert await _refused(link) < 0.05
        assert not link.available
        assert await _refused(link) < 0.03


async def test_a_host_that_says_nothing_is_asked_by_one_probe_at_a_time() -> None:
    async with (
        proxy_to(None) as nobody,
        link_to(f"redis://:p@127.0.0.1:{nobody.port}/0", budget_seconds=0.05, connect_seconds=0.2) as link,
    ):
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            await asyncio.gather(*(link.command("GET", "a") for _ in range(20)), return_exceptions=True)
            await asyncio.sleep(0.002)
        # Of 200 ms each, with 100 ms between them; one more for the second lane's beginning.
        assert 3 <= nobody.accepted <= 7
        assert link.counters.skipped > 1000


async def test_connecting_may_take_longer_than_the_budget() -> None:
    with start_redis(password="of/the@slow:one") as server:
        async with (
            proxy_to(server.port, delay_seconds=0.3) as slow,
            link_to(
                f"redis://:of%2Fthe%40slow%3Aone@127.0.0.1:{slow.port}/0", budget_seconds=0.05, lanes=1, open_seconds=30
            ) as link,
        ):
            began = time.monotonic()
            assert 0.045 < await _refused(link) < 0.15
            assert await _refused(link) < 0.03
            await until(lambda: link.available, seconds=2)
            assert time.monotonic() - began < 1  # It did not begin again, nor wait until the circuit was open for 30 s.
            assert await link.command("PING") == b"PONG"
            assert slow.accepted == 1


async def test_a_program_that_is_held_up_itself_does_not_blame_redis(server: RedisServer, scripts: Path) -> None:
    async with link_to(server.url, scripts=scripts, budget_seconds=0.06) as link:
        await answered(link, "PING")
        await link.script("busy", "a", 0)
        asked = asyncio.create_task(link.script("busy", "a", 20))
        for _ in range(5):  # Turns of the loop, so that it is on its way.
            await asyncio.sleep(0)
        assert not asked.done()
        time.sleep(0.1)  # noqa: ASYNC251 - that is the fault under test
        assert await asked == b"a"
        assert link.counters.failures == 0


async def test_the_time_limits_of_a_client_do_not_count(server: RedisServer, scripts: Path) -> None:
    client = redis.asyncio.Redis.from_url(server.url, socket_timeout=0.01)
    async with link_to(client, scripts=scripts, budget_seconds=0.5) as link:
        assert await link.script("busy", "a", 50) == b"a"
    await client.aclose()


async def test_a_wrong_password_opens_the_circuit() -> None:
    with start_redis(password="right") as server:
        async with link_to(server.url.replace("right", "wrong")) as link:
            with pytest.raises(RedisUnavailable, match=r"\(AuthenticationError\)"):
                await link.command("GET", "a")
            assert not link.available


async def test_a_full_redis_still_reads_and_frees() -> None:
    with start_redis(maxmemory_mb=100, eviction_policy="noeviction") as server:
        async with link_to(server.url) as link:
            await link.command("SET", "a", 1)
            await link.command("SET", "filler", b"x" * 2_000_000)
            server.execute("CONFIG", "SET", "maxmemory", "1mb")
            found = await asyncio.gather(
                link.command("GET", "a"),
                link.command("SET", "b", 1),
                link.command("DEL", "filler"),
                return_exceptions=True,
            )
            assert (found[0], found[2]) == (b"1", 1)
            assert isinstance(found[1], RedisUnavailable)
            assert str(found[1]) == "Redis refused the command (OutOfMemoryError)."
            assert link.available


async def test_eviction_loses_keys_and_nothing_else() -> None:
    with start_redis(maxmemory_mb=3) as server:
        async with link_to(server.url, budget_seconds=1) as link:
            for number in range(200):
                assert await link.command("SET", f"filler-{number}", b"x" * 50_000) == b"OK"
            assert await link.command("DBSIZE") < 100
            assert int(server.execute("INFO", "stats")["evicted_keys"]) > 0
            assert link.counters.failures == 0
