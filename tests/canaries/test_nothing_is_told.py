"""Secrets and texts, put in every place where one can stand, come out at none: logs at DEBUG, reprs, errors, metrics,
events, rows, the journal's files; with servers that answer, that refuse, and that are away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import openai
import pytest
import uvicorn

from ducto.errors import ConfigError, DuctoError
from ducto.gateway import Upstream, build_gateway
from ducto.gateway.metrics import PrometheusMetrics
from ducto.manager import CreditManager
from ducto.migrate import migrate
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import mint_jwt, start_postgrest
from ducto.testing.servers.redis import RedisServer, start_redis
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator
from tests.conformance.sql_harness import migrated_database
from tests.faults_matrix.clusters import Cluster
from tests.middleware.support import PRICING
from tests.telemetry.test_no_secrets import (
    ANSWER,
    PROMPT,
    PROVIDER_KEY,
    USER_KEY,
    WRONG_KEY,
    found_in,
    good_and_bad_calls,
    logs_at_debug,
    post,
)

DATABASE_PASSWORD = "canary-of-the-database/password"
WRONG_PASSWORD = "canary-of-a-wrong-password"
REDIS_PASSWORD = "canary-of-redis"
#: A password stands in a URL in its quoted form too.
CANARIES = [
    PROMPT,
    ANSWER,
    USER_KEY,
    WRONG_KEY,
    PROVIDER_KEY,
    DATABASE_PASSWORD,
    quote(DATABASE_PASSWORD, safe=""),
    WRONG_PASSWORD,
    REDIS_PASSWORD,
]
CHAT = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]}
LOGIN = "books_owner"


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.make()
        cluster.start()
        asyncio.run(cluster.require_password(LOGIN, DATABASE_PASSWORD))
        yield cluster


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with start_redis(password=REDIS_PASSWORD) as server:
        yield server


def url_of(cluster: Cluster, name: str, *, password: str = DATABASE_PASSWORD, port: int | None = None) -> str:
    return f"postgresql://{LOGIN}:{quote(password, safe='')}@127.0.0.1:{port or cluster.port}/{name}"


class Told:
    """All that came out: what is added here, and what was logged."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, *things: object) -> None:
        for thing in things:
            self._texts += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                self._texts += traceback.format_exception(thing)

    @contextlib.asynccontextmanager
    async def errors(self) -> AsyncIterator[None]:
        """Note the refusal or failure in this block, which there has to be."""
        with pytest.raises(DuctoError) as caught:
            yield
        self.add(caught.value)

    def leaks(self, logs: str, *more: str) -> list[str]:
        return found_in("\n".join([*self._texts, logs]), [*CANARIES, *more])


@asynccontextmanager
async def gateway(
    store: CreditStore, journal: Path, simulator: ProviderSimulator, told: Told
) -> AsyncIterator[tuple[httpx.AsyncClient, CreditManager]]:
    """A gateway on a uvicorn that logs all it can, whose events, metrics and journal are noted at the end."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(serve(simulator.app))
        manager = CreditManager(store, maintain_every_seconds=None, journal=journal)
        manager.on("*", lambda event: told.add(event))
        await stack.enter_async_context(manager)
        metrics = stack.enter_context(PrometheusMetrics(manager))
        upstream = Upstream(provider, api_key=PROVIDER_KEY)
        app = build_gateway(
            manager, openai=upstream, anthropic=upstream, keys={USER_KEY: "alice"}, metrics=metrics, drain_seconds=0.2
        )
        config = uvicorn.Config(app, port=0, log_level="trace", log_config=None, access_log=True, lifespan="on")
        server = uvicorn.Server(config)
        for logger in ("uvicorn", "uvicorn.access"):  # The configuration of another server here may have cut them off.
            logging.getLogger(logger).propagate = True
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        serving = asyncio.ensure_future(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            yield http, manager
            told.add((await http.get("/metrics")).text, store, manager, upstream, app)
            told.add(*contents_of(journal))
        server.should_exit = True
        await serving


def contents_of(folder: Path) -> list[str]:
    return [file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()]


async def rows_and_events(store: CreditStore) -> list[object]:
    return [await store.list_events(limit=100), await store.list_transactions("alice", limit=50)]


async def test_of_calls_that_go_through_everything(database: Cluster, redis: RedisServer, tmp_path: Path) -> None:
    told, simulator = Told(), ProviderSimulator()
    name = urlsplit(await database.new_database()).path.strip("/")
    assert (await migrate(url_of(database, name))).success
    with logs_at_debug() as logs:
        async with (
            PostgresStore(url_of(database, name)) as inner,
            RedisCacheStore(inner, redis.url) as store,
            gateway(store, tmp_path, simulator, told) as (http, manager),
        ):
            told.add(inner)
            await manager.publish_pricing(PRICING)
            await manager.add_credits("alice", 100_000, "purchase")
            statuses = await good_and_bad_calls(http, simulator)
            told.add(*await rows_and_events(store))
    assert {200, 400, 401, 402, 404, 422} <= set(statuses)
    # The lines of the libraries are among those that were searched, down to DEBUG.
    assert {"uvicorn", "httpcore", "httpx", "ducto"} <= loggers_in(logs.getvalue())
    assert told.leaks(logs.getvalue()) == []


def loggers_in(logs: str) -> set[str]:
    """The first parts of the names of the loggers that were heard."""
    lines = (line.split(" ") for line in logs.splitlines())
    return {line[1].split(".")[0] for line in lines if len(line) > 2 and line[0].isupper()}


async def test_of_calls_through_postgrest(tmp_path: Path) -> None:
    told, simulator = Told(), ProviderSimulator()
    async with migrated_database("new", roles=True) as books:
        with start_postgrest(books) as server, logs_at_debug() as logs:
            key, forged = server.key(), mint_jwt("f" * 40, "service_role")
            owner = f"postgresql://x:{WRONG_PASSWORD}@127.0.0.1:9/x"
            async with (
                HttpxSupabaseStore(url=server.url, key=key, rest_path="", database_url=owner) as store,
                gateway(store, tmp_path, simulator, told) as (http, manager),
            ):
                async with told.errors():
                    await manager.setup()
                await manager.publish_pricing(PRICING)
                await manager.add_credits("alice", 100_000, "purchase")
                assert 200 in await good_and_bad_calls(http, simulator)
                told.add(*await rows_and_events(store))
            async with HttpxSupabaseStore(url=server.url, key=forged, rest_path="") as refused:
                async with told.errors():
                    await refused.get_balance("alice")
                told.add(refused)
            with pytest.raises(ConfigError) as caught:
                HttpxSupabaseStore(url=server.url, key=mint_jwt("x" * 40, "anon"))
            told.add(caught.value)
    signatures = [each.rpartition(".")[2] for each in (key, forged)]
    assert told.leaks(logs.getvalue(), key, forged, *signatures) == []


async def test_of_servers_that_refuse_us(database: Cluster, redis: RedisServer, tmp_path: Path) -> None:
    told, simulator = Told(), ProviderSimulator()
    wrong_redis = redis.url.replace(REDIS_PASSWORD, WRONG_PASSWORD)
    with logs_at_debug() as logs:
        url = url_of(database, "postgres", password=WRONG_PASSWORD)
        async with PostgresStore(url) as inner, RedisCacheStore(inner, wrong_redis) as store:
            async with told.errors():
                await store.charge_credits("alice", 1)
            async with told.errors():
                await store.setup()
            async with gateway(store, tmp_path, simulator, told) as (http, _):
                assert await post(http, "/v1/chat/completions", CHAT) == 503
                assert (await http.get("/healthz")).status_code == 503
        async with told.errors():
            await migrate(url)
        async with RedisCacheStore(MemoryStore(), wrong_redis) as store:
            assert (await store.get_balance("alice")).balance == 0
            told.add(store)
    assert "check user and password" in logs.getvalue()
    assert told.leaks(logs.getvalue()) == []


async def test_of_servers_that_go_away_within_a_call(redis: RedisServer, tmp_path: Path) -> None:
    """The charge of a delivered answer waits in the journal, which knows amounts and ids alone."""
    told, simulator = Told(), ProviderSimulator()
    with Cluster() as cluster, logs_at_debug() as logs:
        cluster.make()
        cluster.start()
        await cluster.require_password(LOGIN, DATABASE_PASSWORD)
        name = urlsplit(await cluster.new_database()).path.strip("/")
        assert (await migrate(url_of(cluster, name))).success
        async with (
            PostgresStore(url_of(cluster, name), connect_timeout_seconds=1) as inner,
            RedisCacheStore(inner, redis.url) as store,
            gateway(store, tmp_path, simulator, told) as (http, manager),
        ):
            await manager.publish_pricing(PRICING)
            await manager.add_credits("alice", 100_000, "purchase")
            simulator.script(Fault(text=ANSWER, chunk_delay_seconds=0.2))
            calling = asyncio.ensure_future(post(http, "/v1/chat/completions", {**CHAT, "stream": True}))
            while not (simulator.requests and simulator.requests[-1].sent_events):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            cluster.kill()
            assert await calling == 200
            assert await post(http, "/v1/chat/completions", CHAT) == 503
            async with told.errors():
                await manager.charge_credits("alice", 1, "call")
            cluster.start()
    assert '"exception": ' in logs.getvalue()
    assert told.leaks(logs.getvalue()) == []


async def test_of_the_openai_sdk_of_a_client() -> None:
    """Earlier majors of it log whole requests at DEBUG (`openai._base_client`): leave that logger at INFO with them."""
    simulator = ProviderSimulator()
    with logs_at_debug() as logs:
        async with serve(simulator.app) as url:
            client = openai.AsyncOpenAI(base_url=url + "/v1", api_key=USER_KEY, max_retries=0)
            await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
            await client.close()
    assert "openai" in loggers_in(logs.getvalue())
    assert found_in(logs.getvalue(), CANARIES) == []
