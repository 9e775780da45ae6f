from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ducto.gateway import Upstream, build_gateway
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import Books, open_books

PROVIDER_KEY = "provider-key-canary"


@dataclass
class Site:
    """A gateway on a real socket, in front of a simulated provider on another."""

    url: str
    books: Books
    simulator: ProviderSimulator
    http: httpx.AsyncClient

    def headers(self, user: str = "alice", **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer key-of-{user}", **more}


@asynccontextmanager
async def open_site(**options: Any) -> AsyncIterator[Site]:
    simulator = ProviderSimulator()
    async with open_books() as books, serve(simulator.app) as provider:
        gateway = build_gateway(
            books.manager,
            **{
                "openai": Upstream(provider + "/v1", api_key=PROVIDER_KEY),
                "anthropic": Upstream(provider, api_key=PROVIDER_KEY),
                "keys": {"key-of-alice": "alice", "key-of-bob": "bob"},
                **options,
            },
        )
        async with serve(gateway) as url, httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as http:
            yield Site(url, books, simulator, http)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        yield opened
