"""The OpenAI SDK over a metered transport, async and not. Run it with `python examples/openai_sdk.py`.

The provider is a simulator in this process; leave `base_url` away to spend real money. Needs openai, httpx2, uvicorn.
"""

from __future__ import annotations

import asyncio

import httpx2
import openai

from ducto import CreditManager, MemoryStore, acting_as
from ducto.middleware.transport import metered_transport
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

PRICING = {"models": {"gpt-4o-mini": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 16384}}}
QUESTION = "Why is the sky blue?"


async def call(client: openai.AsyncOpenAI) -> None:
    """Nothing here knows of credits, but that a call may be refused."""
    answer = await client.chat.completions.create(
        model="gpt-4o-mini", max_tokens=200, messages=[{"role": "user", "content": QUESTION}]
    )
    print("answered:", (answer.choices[0].message.content or "").split()[0])
    stream = await client.chat.completions.create(
        model="gpt-4o-mini", max_tokens=200, messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    print("streamed:", len([chunk async for chunk in stream]), "chunks")


def call_from_a_thread(manager: CreditManager, url: str) -> None:
    """The same without async: here one user pays, whoever acts."""
    transport = metered_transport(manager, user_id="alice", library="httpx2", mode="sync")
    with openai.OpenAI(base_url=url, api_key="simulated", http_client=httpx2.Client(transport=transport)) as client:
        answer = client.responses.create(model="gpt-4o-mini", max_output_tokens=200, input=QUESTION)
        print("answered in a thread:", answer.output_text.split()[0])


async def main() -> None:
    simulator = ProviderSimulator()
    async with MemoryStore() as store, CreditManager(store) as manager, serve(simulator.app) as provider:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 1_000, "grant", idempotency_key="welcome")

        url = provider + "/v1"
        http_client = httpx2.AsyncClient(transport=metered_transport(manager, library="httpx2"))
        async with openai.AsyncOpenAI(base_url=url, api_key="simulated", http_client=http_client) as client:
            with acting_as("alice"):
                await call(client)
            with acting_as("bob"):
                try:
                    await call(client)
                except openai.APIStatusError as refusal:
                    print(f"bob was refused: {refusal.status_code} {refusal.code}")
        await asyncio.to_thread(call_from_a_thread, manager, url)

        print("calls of the provider:", len(simulator.requests))
        for row in reversed((await manager.list_transactions("alice")).transactions):
            print(f"{row.type:>10} {row.operation_type or '':<18} {row.amount:>6} -> {row.balance_after}")
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
