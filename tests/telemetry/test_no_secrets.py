"""No prompt, answer, key or address of a database comes out of spans, metrics or logs, whatever goes wrong."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ducto.errors import DuctoError, StoreError
from ducto.gateway import Upstream, build_gateway
from ducto.gateway.metrics import PrometheusMetrics
from ducto.manager import CreditManager
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.telemetry import JsonFormatter
from ducto.testing.servers import new_database, postgres_server
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator
from tests.middleware.support import PRICING
from tests.telemetry.support import Telemetry

PROMPT = "canary-of-the-prompt"
ANSWER = "canary-of-the-answer"
USER_KEY = "canary-of-the-users-key"
WRONG_KEY = "canary-of-a-wrong-key"
PROVIDER_KEY = "canary-of-the-providers-key"
PASSWORD = "canary-of-the-password"
CANARIES = [PROMPT, ANSWER, USER_KEY, WRONG_KEY, PROVIDER_KEY, PASSWORD]

CHAT: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]}
MESSAGES: dict[str, Any] = {**CHAT, "system": PROMPT}


@contextmanager
def logs_at_debug() -> Iterator[io.StringIO]:
    """Every line that any library of this process logs, in plain text and as JSON."""
    written = io.StringIO()
    plain, as_json = logging.StreamHandler(written), logging.StreamHandler(written)
    plain.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    as_json.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in (plain, as_json):
        root.addHandler(handler)
    try:
        yield written
    finally:
        root.setLevel(level)
        for handler in (plain, as_json):
            root.removeHandler(handler)


@asynccontextmanager
async def watched_gateway(
    store: CreditStore, telemetry: Telemetry, simulator: ProviderSimulator, *, provider: str | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, CreditManager]]:
    """A gateway whose calls are traced, measured and logged."""
    async with AsyncExitStack() as stack:
        if provider is None:
            provider = await stack.enter_async_context(serve(simulator.app))
        manager = await stack.enter_async_context(CreditManager(store, maintain_every_seconds=None))
        telemetry.instrument(manager)
        metrics = stack.enter_context(PrometheusMetrics(manager))
        upstream = Upstream(provider, api_key=PROVIDER_KEY)
        app = build_gateway(
            manager, openai=upstream, anthropic=upstream, keys={USER_KEY: "alice"}, metrics=metrics, drain_seconds=0.2
        )
        url = await stack.enter_async_context(serve(app))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=20))
        yield http, manager


async def post(http: httpx.AsyncClient, path: str, body: Any, *, key: str = USER_KEY, **headers: str) -> int:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    try:
        return (await http.post(path, content=content, headers=given)).status_code
    except httpx.RemoteProtocolError:
        return 0  # the simulator was told to cut the answer


async def good_and_bad_calls(http: httpx.AsyncClient, simulator: ProviderSimulator) -> list[int]:
    """Calls that pass, that are refused, and whose answers go wrong in each way."""
    faults = [
        Fault(text=ANSWER),
        Fault(text=ANSWER, usage="missing"),
        Fault(text=ANSWER, usage_fields={"completion_tokens": ANSWER, "output_tokens": ANSWER}),
        Fault(status=400, error_body={"error": {"message": ANSWER + PROMPT}}),
        Fault(text=ANSWER, garbage=True),
        Fault(text=ANSWER, cut_after_bytes=30),
        Fault(text=ANSWER, error_after_events=2),
    ]
    statuses = []
    for fault in faults:
        for stream in (False, True):
            for path, body in (("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES)):
                simulator.script(fault)
                statuses.append(await post(http, path, {**body, "stream": stream}))
    refused: list[tuple[Any, str]] = [
        (CHAT, WRONG_KEY),
        ({**CHAT, "model": "unknown"}, USER_KEY),
        ({**CHAT, "max_tokens": PROMPT}, USER_KEY),
        ({**CHAT, "max_tokens": 900_000_000}, USER_KEY),
        (json.dumps(CHAT).encode()[:-9], USER_KEY),
        (b'{"messages": "' + PROMPT.encode() + b'\xff"}', USER_KEY),
    ]
    for body, key in refused:
        statuses.append(await post(http, "/v1/chat/completions", body, key=key))
    for _ in range(2):
        again = {"idempotency-key": "once"}
        simulator.script(Fault(text=ANSWER))
        statuses.append(await post(http, "/v1/chat/completions", CHAT, **again))
    changed = {**CHAT, "messages": [{"role": "user", "content": PROMPT * 2}]}
    statuses.append(await post(http, "/v1/chat/completions", changed, **{"idempotency-key": "once"}))
    statuses.append(await post(http, "/v1/no/such/route", {"prompt": PROMPT}))
    statuses.append((await http.get("/metrics")).status_code)
    return statuses


def found_in(text: str, canaries: list[str]) -> list[str]:
    return [canary for canary in canaries if canary in text]


async def test_nothing_of_the_gateways_calls_is_told(telemetry: Telemetry) -> None:
    simulator = ProviderSimulator()
    with logs_at_debug() as logs:
        async with new_database(postgres_server(), plain_owner=True) as database, PostgresStore(database.url) as store:
            password = urlsplit(database.url).password
            assert password
            async with watched_gateway(store, telemetry, simulator) as (http, manager):
                await manager.setup()
                await manager.publish_pricing(PRICING)
                await manager.add_credits("alice", 100_000, "purchase")
                statuses = await good_and_bad_calls(http, simulator)
                page = (await http.get("/metrics")).text
    assert {200, 400, 401, 402, 404, 422} <= set(statuses)
    told = logs.getvalue() + telemetry.everything() + page
    assert found_in(told, [*CANARIES, password]) == []
    # The search is worth something only where something was told.
    assert len(telemetry.spans) > 20
    assert '"gen_ai.request.model": "m"' in telemetry.everything()
    assert "ducto_calls_total" in page
    assert logs.getvalue().count('"logger": "ducto.') > 3


async def test_nothing_is_told_when_the_provider_and_the_database_are_away(telemetry: Telemetry) -> None:
    simulator = ProviderSimulator()
    away = PostgresStore(
        f"postgresql://ducto:{PASSWORD}@127.0.0.1:9/books", connect_timeout_seconds=0.5, acquire_timeout_seconds=0.5
    )
    with logs_at_debug() as logs:
        async with watched_gateway(MemoryStore(), telemetry, simulator, provider="http://127.0.0.1:9") as (
            http,
            manager,
        ):
            await manager.publish_pricing(PRICING)
            await manager.add_credits("alice", 100_000, "purchase")
            assert await post(http, "/v1/chat/completions", CHAT) == 502
        async with away, watched_gateway(away, telemetry, simulator) as (http, manager):
            assert await post(http, "/v1/chat/completions", CHAT) == 503
            assert (await http.get("/healthz")).status_code == 503
            with pytest.raises(StoreError):
                await manager.charge_credits("alice", 1, "call")
            with pytest.raises(DuctoError):
                await manager.setup()
    assert found_in(logs.getvalue() + telemetry.everything(), CANARIES) == []
    assert "store_unavailable" in telemetry.everything()
    assert '"exception": ' in logs.getvalue()
