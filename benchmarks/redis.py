"""What Redis in front of Postgres costs a call, and what it takes off Postgres.

First a balance and a refused reserve through `RedisCacheStore`, beside `GET` of `redis-py` in the same run and with the
same number of callers. Then a gateway that serves a thousand requests, once with Redis and once without: metered calls
of 200 users, 20 pages that show a balance and ask for it again and again, 10 users who repeat a request with its
`Idempotency-Key`, and two without credits who try again at once. What Postgres was asked is its own count of the calls
of our functions; concurrent calls of one function travel in one, with Redis and without.

Run it with `python -m benchmarks.redis`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]
import httpx
import redis.asyncio

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


async def speeds(database: Database, url: str, *, seconds: float) -> dict[str, float]:
    """Calls a second by name and number of callers: medians of rounds in which all take turns."""
    raw = redis.asyncio.Redis.from_url(url, max_connections=max(CALLERS))
    async with RedisCacheStore(PostgresStore(database.url), url, owns_inner=True) as store, raw:
        await raw.set("bench", json.dumps({"balance": 10**9}))

        async def refused(number: int) -> None:
            answer = await store.reserve_credits(f"broke{number % STORMING_USERS}", 500, "chat")
            assert answer.error == "insufficient_credits", answer

        kinds: dict[str, Callable[[int], Awaitable[object]]] = {
            "GET by redis-py": lambda number: raw.get("bench"),
            "get_balance": lambda number: store.get_balance(f"user{number % USERS}"),
            "refused reserve": refused,
        }
        found: dict[str, float] = {}
        for callers in CALLERS:
            measured: dict[str, list[float]] = {name: [] for name in kinds}
            for _, (name, call) in itertools.product(range(ROUNDS + 1), kinds.items()):
                measured[name].append(await per_second(call, callers=callers, seconds=seconds / ROUNDS))
            for name, figures in measured.items():
                found[f"{name}, {callers}"] = statistics.median(figures[1:])  # The first round warms up.
        counted = store.counters
        found["done without Redis"] = counted.fallbacks / (counted.hits + counted.misses + counted.refusals)
    return found


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


async def measure(*, seconds: float = 3.0) -> dict[str, float]:
    """All figures by name."""
    with start_redis() as server:
        async with bench_database() as database:
            found = await speeds(database, server.url, seconds=seconds)
        for name, calls in (await load(url=None)).items():
            found[f"without: {name}"] = calls
        for name, calls in (await load(url=server.url)).items():
            found[f"with: {name}"] = calls
    return found


def report(found: dict[str, float]) -> list[str]:
    """The figures, and how each stands to its aim."""
    lines = [f"{'':<18}{'callers':>8}{'a second':>10}{'time / GET':>12}"]
    for callers in CALLERS:
        peer = found[f"GET by redis-py, {callers}"]
        for name in ("GET by redis-py", "get_balance", "refused reserve"):
            figure = found[f"{name}, {callers}"]
            missed = "  MISSED" if peer / figure > AIM_TIME else ""
            aim = "" if name.startswith("GET") else f"{peer / figure:>12.2f}  aim <= {AIM_TIME}{missed}"
            lines.append(f"{name:<18}{callers:>8}{figure:>10.0f}{aim}")
    lines.append(f"of all these, {found['done without Redis']:.2%} did without Redis: its 50 ms had passed")
    without, fronted = (
        Counter({name.removeprefix(kind): count for name, count in found.items() if name.startswith(kind)})
        for kind in ("without: ", "with: ")
    )
    mix = ", ".join(f"{share} {kind}" for kind, share in MIX.items())
    lines.append(f"queries to Postgres for 1,000 requests, {CONCURRENT} at a time ({mix}):")
    for name in [*sorted(without | fronted, key=lambda name: -without[name]), None]:
        before, after = (count.total() if name is None else count[name] for count in (without, fronted))
        lines.append(f"{name or 'in all':<26}{before:>8.0f} without Redis{after:>8.0f} with it")
    lines.append(f"taken off Postgres: {1 - fronted.total() / without.total():.0%}")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured")
    chosen = parser.parse_args()
    print("\n".join(report(asyncio.run(measure(seconds=chosen.seconds)))))


if __name__ == "__main__":
    main()
