"""Runs config.yaml offline, with `python examples/litellm_proxy/run.py`: two callers, credits, and a broken-off stream.

It starts a Postgres, a simulated provider and the proxy, as the tests do; LiteLLM is installed into an environment of
its own at the first run. Needs the extra `dev`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import yaml

from ducto import CreditManager
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import new_database, postgres_server
from ducto.testing.servers.litellm import start_litellm
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator

HERE = Path(__file__).parent
#: In dollars for a million tokens; a credit is a millionth of a dollar.
PRICING = {
    "models": {
        "gpt-4o-mini": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 16384},
        "claude": {"unit": "usd", "input": "3", "output": "15", "max_output_tokens": 64000},
    }
}
BODY = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}


async def main() -> None:
    simulator = ProviderSimulator()
    async with (
        new_database(postgres_server()) as database,
        serve(simulator.app) as provider,
        PostgresStore(database.url) as store,
        CreditManager(store) as manager,
    ):
        await manager.setup()
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 10_000, "purchase", idempotency_key="payment-1")
        environment = {
            "DUCTO_STORE": database.url,
            "PROVIDER_URL": provider,
            "PROVIDER_V1_URL": f"{provider}/v1",
            "OPENAI_API_KEY": "sk-provider",
        }
        config = yaml.safe_load((HERE / "config.yaml").read_text())
        hooks = {"hooks.py": (HERE / "hooks.py").read_text()}
        # On a thread, as the provider that the proxy looks for is served by this one.
        proxies = start_litellm(config, modules=hooks, environment=environment)
        proxy = await asyncio.to_thread(proxies.__enter__)
        try:
            await call(proxy.url, manager, simulator)
        finally:
            await asyncio.to_thread(proxies.__exit__, None, None, None)
        print(f"the books agree: {(await manager.verify()).ok}")


async def call(url: str, manager: CreditManager, simulator: ProviderSimulator) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        alice, bob = ({"authorization": f"Bearer sk-of-{name}"} for name in ("alice", "bob"))
        path = "/v1/chat/completions"

        answer = await client.post(path, json=BODY, headers=alice)
        print("alice:", answer.status_code, answer.json()["usage"]["total_tokens"], "tokens")
        refused = await client.post(path, json=BODY, headers=bob)
        print("bob:", refused.status_code, refused.json()["error"]["code"])
        anthropic = await client.post("/v1/messages", json={**BODY, "model": "claude"}, headers=bob)
        print("bob, in Anthropic's words:", anthropic.status_code, anthropic.json()["error"]["type"])

        simulator.script(Fault(chunks=50, chunk_delay_seconds=0.05))
        async with client.stream("POST", path, json={**BODY, "stream": True}, headers=alice) as stream:
            async for line in stream.aiter_lines():
                if "word9" in line:
                    break
        for _ in range(100):  # The proxy needs a moment to see that she left.
            if (await manager.get_available("alice")).held == 0:
                break
            await asyncio.sleep(0.05)
        for row in (await manager.list_transactions("alice")).transactions:
            if row.type == "deduction":
                print("charged:", row.charged, "estimated" if row.estimated else "as the provider said")


if __name__ == "__main__":
    asyncio.run(main())
