"""What the demo runs in: a simulated provider, the metered gateway in front of it, a pricing config and users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

__all__ = ["PRICING", "Environment", "gateway_environment"]

#: Prices as the providers list them, in dollars per million tokens, sold with a markup of a fifth.
PRICING: dict[str, Any] = {
    "version": 1,
    "markup": "1.2",
    "models": {
        "gpt-4o-mini": {
            "unit": "usd",
            "input": "0.15",
            "cache_read": "0.075",
            "output": "0.60",
            "max_output_tokens": 16384,
        },
        "claude-*": {
            "unit": "usd",
            "input": "3",
            "cache_read": "0.30",
            "cache_write": "3.75",
            "cache_write_1h": "6",
            "output": "15",
            "max_output_tokens": 64000,
        },
        "text-embedding-3-small": {"unit": "usd", "input": "0.02"},
    },
}

#: Who may call, by the key that the gateway gave them. One credit is a millionth of a dollar.
USERS: Mapping[str, tuple[str, int]] = {
    "demo-key-alice": ("alice", 1_000_000),
    "demo-key-bob": ("bob", 500_000),
    "demo-key-carol": ("carol", 190),
}


@dataclass(frozen=True, slots=True)
class Environment:
    """A running gateway: `url` is its address, `key_of` the key of each user."""

    url: str
    manager: CreditManager
    store: CreditStore
    simulator: ProviderSimulator
    key_of: Mapping[str, str]


@asynccontextmanager
async def gateway_environment(*, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Environment]:
    """Start everything on loopback, on free ports unless `port` names one, with credits for the users."""
    simulator = ProviderSimulator()
    async with MemoryStore() as store, CreditManager(store) as manager, serve(simulator.app) as provider:
        await manager.setup()
        await manager.publish_pricing(PRICING, label="demo")
        for user, credits in USERS.values():
            await manager.add_credits(user, credits, "purchase", idempotency_key="demo")
        app = build_gateway(
            manager,
            openai=Upstream(provider, api_key="provider-key"),
            anthropic=Upstream(provider, api_key="provider-key"),
            keys={key: user for key, (user, _) in USERS.items()},
        )
        async with serve(app, host=host, port=port) as url:
            yield Environment(url, manager, store, simulator, {user: key for key, (user, _) in USERS.items()})
