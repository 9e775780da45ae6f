"""Hearing a channel: what is published, and that something may have been missed."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from ducto.testing.servers.redis import start_redis
from tests.redis.link_support import answered, link_to, until


async def test_what_is_published_is_heard_by_all_who_listen() -> None:
    with start_redis() as server:
        async with link_to(server.url) as link:
            first: list[str | None] = []
            second: list[str | None] = []
            stop = link.listen("news", first.append)
            await until(lambda: first == [None])
            link.listen("news", second.append)
            await until(lambda: second == [None])
            assert await link.command("PUBLISH", "news", "é") == 1  # One subscription, however many listen.
            await link.command("PUBLISH", "other", "not heard")
            await until(lambda: first == [None, "é"] == second)
            stop()
            stop()
            await link.command("PUBLISH", "news", "later")
            await until(lambda: second == [None, "é", "later"])
            assert first == [None, "é"]


async def test_the_subscription_ends_with_the_last_listener_and_begins_again_with_the_next() -> None:
    with start_redis() as server:
        async with link_to(server.url) as link:
            heard: list[str | None] = []
            stop = link.listen("news", heard.append)
            await until(lambda: heard == [None])
            stop()
            await until(lambda: server.execute("PUBSUB", "CHANNELS") == [])
            link.listen("news", heard.append)
            await until(lambda: heard == [None, None])
            await link.command("PUBLISH", "news", "again")
            await until(lambda: heard == [None, None, "again"])


async def test_after_a_restart_it_is_told_that_something_may_have_been_missed() -> None:
    with start_redis() as server:
        async with link_to(server.url) as link:
            heard: list[str | None] = []
            link.listen("news", heard.append)
            await until(lambda: heard == [None])
            server.kill()
            await asyncio.sleep(0.5)
            assert heard == [None]
            server.start()
            began = time.monotonic()
            await until(lambda: heard == [None, None])
            assert time.monotonic() - began < 1.5
            await answered(link, "PUBLISH", "news", "hello")
            await until(lambda: heard == [None, None, "hello"])


async def test_it_waits_for_a_server_that_is_not_there_yet() -> None:
    with start_redis() as server:
        server.kill()
        async with link_to(server.url) as link:
            heard: list[str | None] = []
            link.listen("news", heard.append)
            await asyncio.sleep(0.3)
            assert heard == []
            server.start()
            await until(lambda: heard == [None])


async def test_a_silent_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ducto.stores.redis.listener._SILENCE_SECONDS", 0.15)
    with start_redis() as server:
        async with link_to(server.url, connect_seconds=0.3) as link:
            heard: list[str | None] = []
            link.listen("news", heard.append)
            await until(lambda: heard == [None])
            await asyncio.sleep(0.5)
            assert heard == [None]  # Asked, and answered.
            server.pause()
            await asyncio.sleep(0.6)
            server.resume()
            await until(lambda: heard == [None, None], seconds=3)


async def test_a_callback_that_fails_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(message: str | None) -> None:
        raise ValueError(message)

    with start_redis() as server, caplog.at_level(logging.ERROR):
        async with link_to(server.url) as link:
            heard: list[str | None] = []
            link.listen("news", fail)
            link.listen("news", heard.append)
            await until(lambda: heard == [None])
            await link.command("PUBLISH", "news", "hello")
            await until(lambda: heard == [None, "hello"])
    assert "A callback for the channel news of Redis failed." in caplog.text
