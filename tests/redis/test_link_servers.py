"""The forms in which Redis runs: a socket, a password, TLS, behind a Sentinel, as a Cluster."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio
import trustme

from ducto.errors import ConfigError
from ducto.stores.redis.link import RedisUnavailable
from ducto.testing.servers.redis import (
    RedisClusterServers,
    RedisSentinelServers,
    RedisServer,
    redis_cluster,
    redis_sentinel,
    redis_server,
    start_redis,
)
from tests.redis.link_support import BUSY, answered, link_to, proxy_to, until


async def test_through_a_socket() -> None:
    with start_redis() as server:
        async with link_to(server.unix_url) as link:
            assert await link.command("PING") == b"PONG"


async def test_with_a_password_and_with_a_login_of_its_own() -> None:
    with start_redis(password="of/all@once:1") as server:
        server.execute("ACL", "SETUSER", "ducto", "on", ">only%here", "~ducto:*", "+@all", "-@dangerous")
        async with link_to(f"redis://:of%2Fall%40once%3A1@127.0.0.1:{server.port}") as link:
            assert await link.command("SET", "ducto:a", 1) == b"OK"
        async with link_to(f"redis://ducto:only%25here@127.0.0.1:{server.port}/0") as link:
            assert await link.command("GET", "ducto:a") == b"1"
            with pytest.raises(RedisUnavailable, match=r"\(NoPermissionError\)"):
                await link.command("FLUSHALL")
            assert await link.command("GET", "ducto:a") == b"1"


async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    stranger_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.issue_cert("127.0.0.1").configure_cert(stranger_side)
    with start_redis(password="secret") as server:
        async with (
            proxy_to(server.port, tls=server_side) as front,
            link_to(f"rediss://:secret@127.0.0.1:{front.port}/0?ssl_ca_certs={certificate}") as link,
        ):
            await answered(link, "SET", "a", 1)
            answers = await asyncio.gather(*(link.command("GET", "a") for _ in range(100)))
            assert answers == [b"1"] * 100
            heard: list[str | None] = []
            link.listen("news", heard.append)
            await until(lambda: heard == [None])
        async with (
            proxy_to(server.port, tls=stranger_side) as front,
            link_to(f"rediss://:secret@127.0.0.1:{front.port}/0?ssl_ca_certs={certificate}") as link,
        ):
            with pytest.raises(RedisUnavailable):
                await link.command("GET", "a")
            await asyncio.sleep(0.3)
            assert not link.available


@pytest.fixture
def sentinel() -> Iterator[RedisSentinelServers]:
    with redis_sentinel() as servers:
        yield servers


async def test_behind_a_sentinel_the_promoted_replica_is_found(sentinel: RedisSentinelServers) -> None:
    async with link_to(sentinel.url, connect_seconds=2) as link:
        assert await answered(link, "SET", "a", 1) == b"OK"
        assert sentinel.master.execute("GET", "a") == b"1"
        heard: list[str | None] = []
        link.listen("news", heard.append)
        await until(lambda: heard == [None])
        sentinel.master.kill()
        with pytest.raises(RedisUnavailable):
            await link.command("SET", "a", 2)
        assert await answered(link, "SET", "a", 3, seconds=20) == b"OK"
        assert sentinel.replica.execute("GET", "a") == b"3"
        await until(lambda: heard == [None, None])


async def test_a_url_may_name_a_sentinel_that_is_gone(sentinel: RedisSentinelServers) -> None:
    alive = f"127.0.0.1:{sentinel.sentinel.port}"
    async with link_to(sentinel.url.replace(alive, f"127.0.0.1:1,{alive}"), connect_seconds=2) as link:
        assert await answered(link, "SET", "a", 1, seconds=3) == b"OK"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    with redis_cluster() as servers:
        yield servers


async def test_a_cluster_is_asked_where_the_key_is(cluster: RedisClusterServers, tmp_path: Path) -> None:
    (tmp_path / "busy.lua").write_text(BUSY)
    async with link_to(cluster.url, scripts=tmp_path) as link:
        await answered(link, "SET", "a", 0)
        keys = [f"ducto:1:{{u:{number}}}" for number in range(200)]
        await asyncio.gather(*(link.command("SET", key, key) for key in keys))
        assert await asyncio.gather(*(link.command("GET", key) for key in keys)) == [key.encode() for key in keys]
        held = [server.execute("DBSIZE") for server in cluster.servers]
        assert min(held) > 20
        assert await asyncio.gather(*(link.script("busy", key, 0) for key in keys)) == [key.encode() for key in keys]
        assert link.available


async def test_a_channel_of_a_cluster_is_heard_whoever_publishes(cluster: RedisClusterServers) -> None:
    async with link_to(cluster.url) as link:
        heard: list[str | None] = []
        link.listen("news", heard.append)
        await until(lambda: heard == [None])
        for server in cluster.servers:
            server.execute("PUBLISH", "news", f"from {server.port}")
        await answered(link, "PUBLISH", "news", "from the link")
        await until(lambda: len(heard) == 5)
        assert set(heard) == {None, "from the link", *(f"from {server.port}" for server in cluster.servers)}


def _serves(server: RedisServer, slot: int) -> bool:
    me = server.execute("CLUSTER", "MYID")
    return any(first <= slot <= last and owner[2] == me for first, last, owner in server.execute("CLUSTER", "SLOTS"))


async def test_a_key_that_moved_is_found_again(cluster: RedisClusterServers) -> None:
    async with link_to(cluster.url) as link:
        await answered(link, "DEL", "moving")
        slot = cluster.servers[0].execute("CLUSTER", "KEYSLOT", "moving")
        source = next(server for server in cluster.servers if _serves(server, slot))
        target = next(server for server in cluster.servers if server is not source)
        name = target.execute("CLUSTER", "MYID")
        # Only a server that was importing the slot takes a new epoch with it; without one, gossip of the old owner
        # that is still on its way would give the slot back.
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.execute("CLUSTER", "MYID"))
        for server in (target, *(each for each in cluster.servers if each is not target)):
            server.execute("CLUSTER", "SETSLOT", slot, "NODE", name)
        with pytest.raises(RedisUnavailable, match=r"\(MovedError\)"):
            await link.command("SET", "moving", 1)
        assert await answered(link, "SET", "moving", 2) == b"OK"
        assert target.execute("GET", "moving") == b"2"
        assert link.available


async def test_a_server_of_a_cluster_that_hangs_costs_only_its_own_keys(cluster: RedisClusterServers) -> None:
    keys = [f"key-{number}" for number in range(60)]
    async with link_to(cluster.url, budget_seconds=0.3) as link:
        for key in keys:
            await answered(link, "SET", key, key)
        cluster.servers[1].pause()
        try:
            found = await asyncio.gather(*(link.command("GET", key) for key in keys), return_exceptions=True)
            lost = [key for key, each in zip(keys, found, strict=True) if isinstance(each, RedisUnavailable)]
            assert 5 < len(lost) < 40
            assert not link.available
            await asyncio.sleep(0.3)
            found = await asyncio.gather(*(link.command("GET", key) for key in keys), return_exceptions=True)
            assert [key for key, each in zip(keys, found, strict=True) if isinstance(each, RedisUnavailable)] == lost
        finally:
            cluster.servers[1].resume()
        await until(lambda: link.available)
        assert [await answered(link, "GET", key) for key in keys] == [key.encode() for key in keys]


async def test_a_cluster_that_is_not_there_is_not_waited_for() -> None:
    async with link_to("redis+cluster://127.0.0.1:1,127.0.0.1:2", budget_seconds=0.1) as link:
        with pytest.raises(RedisUnavailable):
            await link.command("GET", "a")
        assert not link.available
        began = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await link.command("GET", "a")
        assert time.monotonic() - began < 0.03


async def test_a_client_of_a_cluster_is_used_and_left_open(cluster: RedisClusterServers) -> None:
    port = cluster.servers[0].port
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=port, decode_responses=True)
    async with link_to(client) as link:
        await answered(link, "SET", "a", "é")
        assert await link.command("GET", "a") == "é".encode()
    assert await client.get("a") == "é"
    await client.aclose()


def test_a_server_that_a_developer_runs_is_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = redis_server()
    named = RedisServer(shared.url)
    named.start()
    assert named.execute("PING") is True
    with pytest.raises(ConfigError, match="DUCTO_TEST_REDIS_URL"):
        named.pause()
    named.stop()
    assert shared.execute("PING") is True
