"""What the demo runs in: a simulated provider, the metered gateway in front of it, a pricing config and users."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ducto.errors import ConfigError
from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.middleware import AnswerCache, RedisAnswers
from ducto.middleware.answers import InProcess
from ducto.pricing import parse_pricing
from ducto.stores.base import CreditStore
from ducto.stores.opening import open_store, redis_of_environment
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

__all__ = ["PRICING", "USERS", "Environment", "default_store_url", "gateway_environment"]

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

#: Who may call, by the key that the gateway gave them, and the credits that each has at the start. One credit is a
#: millionth of a dollar.
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
    #: Different each time, for what must not be taken for a call of an earlier demo on the same books.
    run_id: str


def default_store_url() -> str:
    """A Postgres of its own in a folder of the user: `$DUCTO_HOME/postgres`, by default below `~/.ducto`.

    For root it is below `/var/lib/ducto`: the server then runs as another user, for whom the folders above would
    otherwise be opened, the home of root among them.
    """
    home = os.environ.get("DUCTO_HOME") or ("/var/lib/ducto" if os.getuid() == 0 else Path.home() / ".ducto")
    return f"embedded:{home}/postgres"


@asynccontextmanager
async def gateway_environment(
    *, store_url: str | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Environment]:
    """Start everything on loopback, on free ports unless `port` names one, with credits for the users.

    The books are in the store that `store_url` names (see `open_store`; default: `default_store_url`) and go on from
    where an earlier demo left them. Where `DUCTO_REDIS_URL` is set, that Redis is in front of the store and keeps the
    gateway's answers. Raises `ConfigError` if the store cannot be set up.
    """
    simulator = ProviderSimulator()
    async with (
        open_store(store_url or default_store_url()) as store,
        CreditManager(store) as manager,
        serve(simulator.app) as provider,
        AsyncExitStack() as stack,
    ):
        set_up = await manager.setup()
        if not set_up.success:
            raise ConfigError(f"The store could not be set up: {'; '.join(set_up.errors)}")
        run_id = uuid4().hex
        await _publish(manager, store)
        await _fund(manager, run_id)
        app = build_gateway(
            manager,
            openai=Upstream(provider, api_key="provider-key"),
            anthropic=Upstream(provider, api_key="provider-key"),
            keys={key: user for key, (user, _) in USERS.items()},
            answers=_answers(stack),
        )
        async with serve(app, host=host, port=port) as url:
            key_of = {user: key for key, (user, _) in USERS.items()}
            yield Environment(url, manager, store, simulator, key_of, run_id)


def _answers(stack: AsyncExitStack) -> AnswerCache | InProcess:
    redis = redis_of_environment()
    if redis is None:
        return "in process"
    answers = RedisAnswers(redis.url, prefix=redis.prefix)
    stack.push_async_callback(answers.aclose)
    return answers


async def _publish(manager: CreditManager, store: CreditStore) -> None:
    active = await store.get_active_pricing()
    if active is None or active.config != parse_pricing(PRICING):
        await manager.publish_pricing(PRICING, label="demo")


async def _fund(manager: CreditManager, run_id: str) -> None:
    """Fill every user's credits up to what the demo starts with."""
    for user, credits in USERS.values():
        missing = credits - (await manager.get_balance(user)).balance
        if missing > 0:
            await manager.add_credits(user, missing, "purchase", idempotency_key=f"demo-{run_id}")
