"""What Redis in front of Postgres costs a call, and what it takes off Postgres.

First a balance and a refused reserve through `RedisCacheStore`, beside `GET` of `redis-py` in the same run and with the
same number of callers. Then a gateway that serves a thousand requests, once with Redis and once without: metered calls
of 200 users, 20 pages that show a balance and ask for it again and again, 10 users who repeat a request with its
`Idempotency-Key`, and two without credits who try again at once. What Postgres was asked is its own count of the calls
of our functions; concurrent calls of one function travel in one, with Redis and without.

Run it with `python -m benchmarks.redis`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]
import httpx
import redis.asyncio

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.middleware import AnswerCache, RedisAnswers
from ducto.middleware.answers import InProcess
from ducto.migrate import migrate
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.testing.servers import Database, new_database, postgres_server
from ducto.testing.servers.redis import start_redis
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

CALLERS = (1, 16, 256)
USERS = 200
STORMING_USERS = 2
REPEATING_USERS = 10
WATCHING_USERS = 20
ROUNDS = 5

AIM_TIME = 1.5
PEER = "GET by redis-py"
#: Calls a second of each round, by name and number of callers.
Speeds = dict[tuple[str, int], list[float]]

REQUESTS = 1000
CONCURRENT = 16
#: How many of the thousand requests are of which kind.
MIX = {"call": 400, "balance": 250, "storm": 250, "retry": 100}

PATH = "/v1/chat/completions"
PRICING = {
    "version": 1,
    "models": {"m": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 1_000}},
}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Tell me something."}], "max_tokens": 300})


@asynccontextmanager
async def bench_database() -> AsyncIterator[Database]:
    """A migrated database with users who have credits; `broke` ones have none."""
    async with new_database(postgres_server("new", durable=True)) as database:
        result = await migrate(database.url)
        assert result.success, result.errors
        async with PostgresStore(database.url) as store:
            await store.set_active_pricing(PRICING)
            await asyncio.gather(*(store.add_credits(f"user{number}", 10**9) for number in range(USERS)))
            await asyncio.gather(*(store.add_credits(f"broke{number}", 1) for number in range(STORMING_USERS)))
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute(f"ALTER DATABASE {database.name} SET track_functions = 'all'")
        finally:
            await connection.close()
        yield database


async def per_second(call: Callable[[int], Awaitable[object]], *, callers: int, seconds: float) -> float:
    """Calls a second of `callers`, each of which waits for its answer and calls again."""
    end = time.perf_counter() + seconds
    done = 0

    async def work(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(number)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(callers)))
    return done / (time.perf_counter() - begun)


async def speeds(database: Database, url: str, *, seconds: float, rounds: int) -> tuple[Speeds, float]:
    """Calls a second in each round, by name and number of callers; and the share that did without Redis.

    In a round all take turns.
    """
    raw = redis.asyncio.Redis.from_url(url, max_connections=max(CALLERS))
    async with RedisCacheStore(PostgresStore(database.url), url, owns_inner=True) as store, raw:
        await raw.set("bench", json.dumps({"balance": 10**9}))

        async def refused(number: int) -> None:
            answer = await store.reserve_credits(f"broke{number % STORMING_USERS}", 500, "chat")
            assert answer.error == "insufficient_credits", answer

        kinds: dict[str, Callable[[int], Awaitable[object]]] = {
            PEER: lambda number: raw.get("bench"),
            "get_balance": lambda number: store.get_balance(f"user{number % USERS}"),
            "refused reserve": refused,
        }
        found: Speeds = {}
        for callers in CALLERS:
            measured: dict[str, list[float]] = {name: [] for name in kinds}
            for _, (name, call) in itertools.product(range(rounds + 1), kinds.items()):
                measured[name].append(await per_second(call, callers=callers, seconds=seconds / rounds))
            for name, figures in measured.items():
                found[name, callers] = figures[1:]  # The first round warms up.
        counted = store.counters
        without_redis = counted.fallbacks / (counted.hits + counted.misses + counted.refusals)
    return found, without_redis


async def asked(database: Database) -> Counter[str]:
    """How often each of our functions was called; our sessions are closed, so that none has still to tell."""
    connection = await asyncpg.connect(database.server.database_url(database.name))
    try:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        while await connection.fetchval(others, database.name):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)
        rows = await connection.fetch(
            "SELECT funcname, calls FROM pg_stat_user_functions WHERE schemaname = 'public' AND funcname ~ '^ducto_'"
        )
        return Counter({row["funcname"].removeprefix("ducto_"): row["calls"] for row in rows})
    finally:
        await connection.close()


async def serve_the_mix(store: CreditStore, answers: AnswerCache | InProcess) -> Counter[int]:
    """Let a gateway answer the requests; how often it answered with which status."""
    keys = {name: name for kind, count in (("user", USERS), ("broke", STORMING_USERS)) for name in _names(kind, count)}
    kinds = [kind for kind, share in MIX.items() for _ in range(share * REQUESTS // 1000)]
    random.Random(1).shuffle(kinds)
    pending = iter(enumerate(kinds))
    statuses: Counter[int] = Counter()
    async with CreditManager(store) as manager, serve(ProviderSimulator().app) as provider:
        app = build_gateway(manager, openai=Upstream(provider, api_key="provider"), keys=keys, answers=answers)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
        ):

            async def post(user: str, key: str | None = None) -> None:
                headers = {"authorization": f"Bearer {user}", "content-type": "application/json"}
                headers |= {"idempotency-key": key} if key is not None else {}
                statuses[(await client.post(PATH, content=BODY, headers=headers)).status_code] += 1

            async def work() -> None:
                for number, kind in pending:
                    user = f"user{number % USERS}"
                    if kind == "call":
                        await post(user, f"call-{number}")
                    elif kind == "retry":  # The first of each user's is a call, the others repeat it.
                        await post(f"user{number % REPEATING_USERS}", "repeated")
                    elif kind == "storm":
                        await post(f"broke{number % STORMING_USERS}")
                    else:
                        watched = {"authorization": f"Bearer user{number % WATCHING_USERS}"}
                        statuses[(await client.get("/v1/credits", headers=watched)).status_code] += 1

            await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return statuses


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}{number}" for number in range(count)]


async def load(*, url: str | None) -> Counter[str]:
    """What Postgres is asked for a thousand requests, with the Redis of `url` or without."""
    async with bench_database() as database:
        before = await asked(database)
        inner = PostgresStore(database.url)
        if url is None:
            async with inner:
                statuses = await serve_the_mix(inner, "in process")
        else:
            answers = RedisAnswers(url, prefix="bench-load")
            async with RedisCacheStore(inner, url, prefix="bench-load", owns_inner=True) as store:
                statuses = await serve_the_mix(store, answers)
            await answers.aclose()
        assert statuses[402] == MIX["storm"] * REQUESTS // 1000, statuses
        # Two at once under one key, or an answer that Redis did not give in time, is 409.
        assert statuses[200] >= 0.98 * (REQUESTS - statuses[402]), statuses
        return await asked(database) - before


async def _measure(effort: Effort) -> Section:
    with start_redis() as server:
        async with bench_database() as database:
            found, without_redis = await speeds(
                database, server.url, seconds=effort.seconds, rounds=1 if effort.quick else ROUNDS
            )
        asked_alone = await load(url=None)
        asked_behind = await load(url=server.url)
    compared: list[Comparison] = []
    for callers in CALLERS:
        times = {
            name: figure(
                f"{name}, {callers} callers", [callers / each * 1e6 for each in found[name, callers]], unit="us"
            )
            for name in (PEER, "get_balance", "refused reserve")
        }
        for name, ours in times.items():
            if name != PEER:
                what = f"RedisCacheStore hit: {ours.name}"
                compared.append(compare(what, ours, times[PEER], aim=AIM_TIME, better="lower", paired=True))
    mix = ", ".join(f"{share} {kind}" for kind, share in MIX.items())
    return Section(
        "Redis before Postgres",
        about(__doc__),
        compared,
        _taken_off(asked_alone, asked_behind),
        [
            f"Of all these hits {without_redis:.2%} did without Redis, because its 50 ms had passed.",
            f"The {REQUESTS:,} requests came {CONCURRENT} at a time: {mix}.",
        ],
    )


def _taken_off(alone: Counter[str], behind: Counter[str]) -> list[Figure]:
    """What Postgres was asked without Redis and with it, by function."""
    figures = []
    for name in sorted(alone | behind, key=lambda name: -alone[name]):
        for asked_for, kind in ((alone, "without Redis"), (behind, "with it")):
            figures.append(
                figure(f"queries to Postgres for {REQUESTS:,} requests: {name}, {kind}", asked_for[name], unit="calls")
            )
    figures.append(figure("taken off Postgres", 100 * (1 - behind.total() / alone.total()), unit="%"))
    return figures


def measure(effort: Effort) -> Section:
    """The time of a hit beside a raw `GET`, and what Redis takes off Postgres."""
    return asyncio.run(_measure(effort))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
