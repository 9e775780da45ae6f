"""A link to one Redis that is well: answers, pipelines, scripts, and what is refused before Redis is asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import redis as sync_redis
import redis.asyncio

from ducto.errors import ConfigError
from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.testing.servers.redis import redis_server
from tests.redis.link_support import link_to


@pytest.fixture(autouse=True)
def _empty() -> None:
    redis_server().flush()


async def test_answers_are_as_redis_sent_them() -> None:
    async with link_to(redis_server().url) as link:
        assert await link.command("SET", "text", "é") == b"OK"
        assert await link.command("GET", "text") == "é".encode()
        assert await link.command("SET", b"bytes\r\n\xff", b"\x00\r\n\xff") == b"OK"
        assert await link.command("GET", b"bytes\r\n\xff") == b"\x00\r\n\xff"
        assert await link.command("INCRBY", "number", 2**53) == 2**53
        assert await link.command("GET", "missing") is None
        assert await link.command("MGET", "text", "missing") == ["é".encode(), None]
        assert link.available
        assert (link.counters.commands, link.counters.failures, link.counters.skipped) == (7, 0, 0)


async def test_concurrent_commands_share_pipelines_and_each_gets_its_own_answer() -> None:
    async with link_to(redis_server().url) as link:
        await asyncio.gather(*(link.command("SET", f"key-{number}", number) for number in range(300)))
        before = link.counters.pipelines
        answers = await asyncio.gather(*(link.command("GET", f"key-{number}") for number in range(300)))
        assert answers == [b"%d" % number for number in range(300)]
        assert link.counters.pipelines - before <= 3


async def test_a_command_that_redis_refuses_fails_alone_and_names_no_more_than_the_class() -> None:
    async with link_to(redis_server().url) as link:
        await link.command("SET", "text", "a")
        found = await asyncio.gather(
            link.command("GET", "text"),
            link.command("LPUSH", "text", "secret"),
            link.command("GET", "text"),
            return_exceptions=True,
        )
        assert (found[0], found[2]) == (b"a", b"a")
        assert isinstance(found[1], RedisUnavailable)
        assert str(found[1]) == "Redis refused the command (ResponseError)."
        assert link.available
        assert link.counters.failures == 1


async def test_cancelling_a_caller_disturbs_nobody_else() -> None:
    async with link_to(redis_server().url, lanes=1) as link:
        await link.command("MSET", "a", 1, "b", 2, "c", 3)
        tasks = [asyncio.create_task(link.command("GET", key)) for key in "abc" * 50]
        await asyncio.sleep(0)
        for number in range(0, 150, 2):
            tasks[number].cancel()
        await asyncio.sleep(0)
        tasks[1].cancel()  # When the pipeline is on its way.
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 2 == 0 or number == 1:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == b"123"[number % 3 : number % 3 + 1]
        assert await link.command("GET", "c") == b"3"


async def test_what_cannot_be_sent_is_the_callers_own_error() -> None:
    async with link_to(redis_server().url) as link:
        with pytest.raises(UnicodeEncodeError):
            await link.command("GET", "\ud800")
        assert await link.command("PING") == b"PONG"


async def test_a_script_is_loaded_by_itself_also_after_the_server_forgot_it(tmp_path: Path) -> None:
    (tmp_path / "joined.lua").write_text("return KEYS[1] .. ARGV[1] .. ARGV[2]")
    async with link_to(redis_server().url, scripts=tmp_path) as link:
        assert await link.script("joined", "a", "é", 2) == "aé2".encode()
        await link.command("SCRIPT", "FLUSH")
        answers = await asyncio.gather(*(link.script("joined", "a", "b", number) for number in range(20)))
        assert answers == [b"ab%d" % number for number in range(20)]
        asked = link.counters.commands
        assert await link.script("joined", "a", "b", "c") == b"abc"
        assert link.counters.commands == asked + 1
        with pytest.raises(FileNotFoundError):
            await link.script("missing", "a")


async def test_a_script_that_fails_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "broken.lua").write_text("return redis.call('LPUSH', KEYS[1])")
    async with link_to(redis_server().url, scripts=tmp_path) as link:
        with pytest.raises(RedisUnavailable, match=r"\(ResponseError\)"):
            await link.script("broken", "a")
        assert link.available


async def test_a_client_is_used_as_it_is_set_up_and_left_open() -> None:
    client = redis.asyncio.Redis.from_url(redis_server().url, decode_responses=True, client_name="somebody")
    async with link_to(client) as link:
        assert await link.command("CLIENT", "GETNAME") == b"somebody"
        await link.command("SET", "a", "é")
        assert await link.command("GET", "a") == "é".encode()
    assert await client.get("a") == "é"
    await client.aclose()


async def test_the_database_of_the_url_is_selected() -> None:
    server = redis_server()
    async with link_to(server.url) as link, link_to(server.url.removesuffix("/0") + "/3") as other:
        await other.command("SET", "a", 1)
        assert await link.command("GET", "a") is None
        assert await other.command("GET", "a") == b"1"


def test_a_link_belongs_to_the_loop_of_its_first_use() -> None:
    link = RedisLink(redis_server().url)

    async def use() -> None:
        try:
            assert await link.command("PING") == b"PONG"
        finally:
            await link.aclose()

    asyncio.run(use())

    async def use_again() -> None:
        with pytest.raises(ConfigError, match="one link for each loop"):
            await link.command("PING")

    asyncio.run(use_again())


async def test_a_closed_link_refuses() -> None:
    link = RedisLink(redis_server().url)
    await link.aclose()
    await link.aclose()
    assert not link.available
    with pytest.raises(RedisUnavailable, match="closed"):
        await link.command("PING")


async def test_closing_fails_what_still_waits() -> None:
    async with link_to(redis_server().url, budget_seconds=5) as link:
        waiting = [asyncio.create_task(link.command("BLPOP", f"never-{number}", 0)) for number in range(2)]
        await asyncio.sleep(0.02)
        waiting += [asyncio.create_task(link.command("GET", "a"))]
        await asyncio.sleep(0)
        await link.aclose()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, RedisUnavailable)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@localhost",
        "localhost:6379",
        "redis://user:secret@localhost:port/0",
        "redis+sentinel://:secret@localhost:26379",
        "redis+sentinel://:secret@localhost:26379/service/database",
        "redis+sentinel://:secret@/service",
        "redis+cluster://:secret@localhost:7000/1",
        "redis+cluster://:secret@localhost:7000?socket_timeout=soon",
    ],
)
def test_a_url_that_cannot_be_used_says_so_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as found:
        RedisLink(url)
    assert "secret" not in str(found.value)
    assert found.value.__cause__ is None


def test_a_client_that_is_not_async_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"redis\.asyncio"):
        RedisLink(sync_redis.Redis())  # type: ignore[arg-type]


def test_a_missing_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from ducto.errors import ConfigError\n"
        "from ducto.stores.redis.link import RedisLink\n"
        "try: RedisLink('redis://localhost')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'ducto[redis]'" in done.stdout


def test_the_password_is_in_no_representation() -> None:
    assert "secret" not in repr(RedisLink("redis://:secret@localhost:1/0"))
