"""A LiteLLM proxy, the simulated provider behind it, and the books that both it and the tests keep in one Postgres."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ducto.manager import CreditManager
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import new_database, postgres_server
from ducto.testing.servers.litellm import LiteLLMProxy, start_litellm
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator, SimulatedRequest

#: What any account starts with.
START = 100_000
MESSAGES = [{"role": "user", "content": "How much is the fish?"}]
CHAT = "/v1/chat/completions"


def per_token(input_credits: int, output_credits: int) -> dict[str, Any]:
    """A price in credits for each token; the simulator's answers have few of them."""
    return {
        "unit": "credits",
        "input": input_credits * 1_000_000,
        "output": output_credits * 1_000_000,
        "max_output_tokens": 1_000,
    }


PRICING: dict[str, Any] = {
    "version": 1,
    "min_balance": 0,
    "models": {
        "m": per_token(1, 2),
        "flaky": per_token(1, 2),
        "backup": per_token(10, 20),
        "claude": {**per_token(1, 2), "cache_read": 500_000, "cache_write": 2_000_000, "cache_write_1h": 4_000_000},
        "claude-sonnet-4-5": per_token(1, 2),
        "gpt-4o-mini": per_token(1, 2),
        "emb": {"unit": "credits", "input": 1_000_000},
        "deployed-model": per_token(3, 4),
        "not-served": per_token(1, 2),
    },
    "plans": {"one-at-a-time": {"max_concurrent": 1}},
}

#: Keys are `sk-USER` or `sk-USER@TEAM`: identities without a database of LiteLLM's.
AUTHENTICATION = """
from litellm.proxy._types import ProxyException, UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    if not api_key.startswith("sk-"):
        raise ProxyException("unknown key", type="auth_error", param=None, code=401)
    user, _, team = api_key.removeprefix("sk-").partition("@")
    return UserAPIKeyAuth(api_key=f"hash-of-{api_key}", user_id=user, team_id=team or None)
"""


@dataclass
class Site:
    """A running proxy in front of `simulator`. The databases of all sites are their own."""

    proxy: LiteLLMProxy
    simulator: ProviderSimulator
    database_url: str
    #: Users of whom a test has said how many ledger rows they end with.
    rows: dict[str, int] = field(default_factory=dict)


@dataclass
class Account:
    """One user with credits, who calls the proxy."""

    user: str
    site: Site
    store: PostgresStore
    manager: CreditManager
    http: httpx.AsyncClient

    async def spent(self, *, rows: int = 1) -> int:
        """What was charged, when no hold is left; in `rows` ledger rows."""
        for _ in range(200):
            standing = await self.store.get_available(self.user)
            if standing.held == 0 and len(await self.charges()) >= rows:
                break
            await asyncio.sleep(0.05)
        assert standing.held == 0, f"{standing.held} credits are still held"
        found = await self.charges()
        assert len(found) == rows, found
        self.site.rows[self.user] = rows
        return START - standing.balance

    async def charges(self) -> list[Any]:
        page = await self.store.list_transactions(self.user)
        return [row for row in page.transactions if row.type == "deduction"]

    async def post(self, path: str, body: Mapping[str, Any], **options: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **options)

    async def chat(self, *, model: str = "m", headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return await self.post(CHAT, chat_body(model=model, **fields), headers=headers)

    def reply(self, number: int = -1) -> SimulatedRequest:
        """What the provider was asked and answered."""
        return self.site.simulator.requests[number]

    def cost(self, *, input_credits: int = 1, output_credits: int = 2) -> int:
        """The price of the provider's last answer."""
        reply = self.reply().reply
        assert reply is not None
        return input_credits * reply.input_tokens + output_credits * reply.output_tokens


def chat_body(*, model: str = "m", **fields: Any) -> dict[str, Any]:
    # A text that no other test sent, for the cache.
    messages = [{"role": "user", "content": f"How much is fish {secrets.token_hex(4)}?"}]
    return {"model": model, "messages": messages, "max_tokens": 50, **fields}


def proxy_config(provider: str, *, callbacks: str) -> dict[str, Any]:
    def openai(name: str, model: str = "gpt-4o-mini") -> dict[str, Any]:
        parameters = {"model": f"openai/{model}", "api_base": f"{provider}/v1", "api_key": "sk-provider"}
        return {"model_name": name, "litellm_params": parameters}

    claude = {"model": "anthropic/claude-sonnet-4-5", "api_base": provider, "api_key": "sk-provider"}
    return {
        "model_list": [
            openai("m"),
            openai("flaky"),
            openai("backup", "gpt-4o"),
            openai("emb", "text-embedding-3-small"),
            openai("by-deployment", "deployed-model"),
            openai("nobody-knows", "unknown-model"),
            openai("only-litellm-knows", "gpt-4.1-mini"),
            {"model_name": "claude", "litellm_params": claude},
        ],
        "litellm_settings": {
            "callbacks": callbacks,
            "num_retries": 0,
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
        "router_settings": {
            "fallbacks": [{"flaky": ["backup"]}],
            "retry_after": 0,
            "disable_cooldowns": True,
            "model_group_retry_policy": {"flaky": {"InternalServerErrorRetries": 1}},
        },
        "general_settings": {"master_key": "sk-master", "custom_auth": "authentication.user_api_key_auth"},
    }


@contextmanager
def open_site(callbacks: str, modules: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[Site]:
    """A site with a proxy of its own. `DUCTO_STORE` names its database. The books are checked at the end."""
    simulator = ProviderSimulator()
    with asyncio.Runner() as runner, _provider(simulator) as provider:
        opened = new_database(postgres_server())
        database = runner.run(opened.__aenter__())
        try:
            runner.run(_set_up(database.url))
            with start_litellm(
                proxy_config(provider, callbacks=callbacks),
                modules={"authentication.py": AUTHENTICATION, **modules},
                environment={
                    "DUCTO_STORE": database.url,
                    # Where pass-through calls go.
                    "OPENAI_API_BASE": provider,
                    "OPENAI_API_KEY": "sk-provider",
                    "ANTHROPIC_API_BASE": provider,
                    "ANTHROPIC_API_KEY": "sk-provider",
                    **environment,
                },
            ) as proxy:
                site = Site(proxy, simulator, database.url)
                yield site
            runner.run(_check(site))
        finally:
            runner.run(opened.__aexit__(None, None, None))


@contextmanager
def _provider(simulator: ProviderSimulator) -> Iterator[str]:
    """The simulator on a thread of its own: it outlives the event loops of the tests."""
    started, ended = threading.Event(), threading.Event()
    urls: list[str] = []

    async def run() -> None:
        async with serve(simulator.app, shutdown_seconds=1.0) as url:
            urls.append(url)
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="provider")
    thread.start()
    try:
        assert started.wait(10), "the simulated provider did not start"
        yield urls[0]
    finally:
        ended.set()
        thread.join()


async def _set_up(url: str) -> None:
    async with PostgresStore(url) as store, CreditManager(store, maintain_every_seconds=None) as manager:
        assert (await manager.setup()).success
        await manager.publish_pricing(PRICING)


async def _check(site: Site) -> None:
    """The books are whole, and nothing was charged after the tests had looked."""
    async with PostgresStore(site.database_url) as store:
        found = await store.verify()
        assert found.ok, found.faults
        for user, rows in site.rows.items():
            page = await store.list_transactions(user)
            assert sum(row.type == "deduction" for row in page.transactions) == rows, user


@asynccontextmanager
async def open_account(site: Site, *, credits: int = START) -> AsyncIterator[Account]:
    """A new user of the proxy with `credits`."""
    user = f"user-{secrets.token_hex(4)}"
    async with (
        PostgresStore(site.database_url) as store,
        CreditManager(store, maintain_every_seconds=None) as manager,
        httpx.AsyncClient(
            base_url=site.proxy.url,
            headers={"authorization": f"Bearer sk-{user}"},
            timeout=30,
            trust_env=False,
        ) as http,
    ):
        if credits:
            await manager.add_credits(user, credits, "purchase", idempotency_key="start")
        yield Account(user, site, store, manager, http)


def scripted(account: Account, *faults: Fault) -> None:
    account.site.simulator.script(*faults)
