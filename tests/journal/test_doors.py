"""The store is killed while a call runs: whatever the door, its caller has his answer, and is charged later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ducto.context import acting_as
from ducto.gateway import Upstream, build_gateway
from ducto.journal import SettleJournal
from ducto.manager import CreditManager
from ducto.middleware.admitting import admit, read_request
from ducto.middleware.billing import AnswerFacts
from ducto.middleware.decorator import metered
from ducto.middleware.identity import Identity
from ducto.middleware.litellm.calls import CallBook, ProxiedCall
from ducto.middleware.litellm.formats import CHAT as LITELLM_CHAT
from ducto.middleware.litellm.reading import read_answer
from ducto.middleware.litellm.serving import Served
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from tests.journal.support import outstanding
from tests.litellm import test_call_book as litellm_calls
from tests.middleware.support import BODIES, CHAT, PRICING

START = 100_000


@asynccontextmanager
async def books(mortal: Database, folder: Path) -> AsyncIterator[CreditManager]:
    """At the end the server is there again, and alice was charged once."""
    journal = SettleJournal(folder, replay_every_seconds=0.2)
    async with (
        PostgresStore(mortal.url) as store,
        CreditManager(store, maintain_every_seconds=None, journal=journal) as manager,
    ):
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", START)
        try:
            yield manager
            assert len(outstanding(folder, store.books_name or "")) == 1
        finally:
            await asyncio.to_thread(mortal.server.start)
        async with asyncio.timeout(20):
            while outstanding(folder, store.books_name or ""):  # noqa: ASYNC110 - the journal tells nobody
                await asyncio.sleep(0.05)
        rows = (await store.list_transactions("alice")).transactions
        assert [row.type for row in rows] == ["deduction", "adjustment"]
        assert (await store.get_available("alice")).held == 0
        assert (await store.verify()).ok


async def test_the_decorator(mortal: Database, folder: Path) -> None:
    async with books(mortal, folder) as manager:

        @metered(manager, estimate=500, usage=len)
        async def ask(prompt: str) -> str:
            mortal.server.process.kill_family()
            return prompt.upper()

        with acting_as("alice"):
            assert await ask("hello") == "HELLO"


async def test_the_litellm_hook(mortal: Database, folder: Path) -> None:
    async with books(mortal, folder) as manager:
        book = CallBook(manager, price="pricing_config", cache_hits="free", missing_usage=None, grace_seconds=1.0)
        raw = json.dumps(litellm_calls.BODY).encode()
        request = await read_request(raw, provider=LITELLM_CHAT, manager=manager, options=litellm_calls.OPTIONS)
        admitted = await admit(request, Identity("alice"), key=None, manager=manager, options=litellm_calls.OPTIONS)
        call = ProxiedCall(admitted.metered, request, key_hash="alice's key", by_public_name=True)
        book.add(call)
        mortal.server.process.kill_family()
        facts = AnswerFacts(reading=read_answer(litellm_calls.ANSWER, call.request), complete=True)
        await book.charge(call, facts, Served())


@pytest.mark.parametrize("stream", [False, True])
async def test_the_gateway(mortal: Database, folder: Path, stream: bool) -> None:
    simulator = ProviderSimulator()
    body = {**BODIES[CHAT], "stream": stream}

    async def killing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and mortal.server.process.running:
            mortal.server.process.kill_family()
        await simulator.app(scope, receive, send)

    async with books(mortal, folder) as manager, serve(killing) as provider:
        gateway = build_gateway(manager, openai=Upstream(provider, api_key="p"), keys={"key-of-alice": "alice"})
        async with serve(gateway) as url, httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(url + CHAT, json=body, headers={"Authorization": "Bearer key-of-alice"})
            assert answer.status_code == 200
            assert "word8" in answer.text
            refused = await client.post(url + CHAT, json=body, headers={"Authorization": "Bearer key-of-alice"})
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
