"""`@metered` on a coroutine, a plain function and a stream. Run it with `python examples/decorator.py`.

The provider is a simulator in this process; point `base_url` at a real one to spend real money.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from ducto import CreditManager, MemoryStore, acting_as, metered
from ducto.errors import InsufficientCreditsError
from ducto.testing.simulator import ProviderSimulator

PRICING = {"models": {"gpt-4o-mini": {"unit": "usd", "input": "0.15", "output": "0.60"}}}


async def main() -> None:
    simulator = ProviderSimulator()
    transport = httpx.ASGITransport(app=simulator.app)
    async with (
        MemoryStore() as store,
        CreditManager(store) as manager,
        httpx.AsyncClient(transport=transport, base_url="http://provider") as client,
    ):
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 1_000, "grant", idempotency_key="welcome")

        @metered(manager, model="gpt-4o-mini")
        async def ask(prompt: str, *, max_tokens: int) -> dict[str, Any]:
            """The usage is found in the provider's answer; `prompt` and `max_tokens` give the worst case."""
            body = {"model": "gpt-4o-mini", "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]}
            answer = await client.post("/v1/chat/completions", json=body)
            return dict(answer.raise_for_status().json())

        @metered(manager, model="gpt-4o-mini")
        async def tell(prompt: str, *, max_tokens: int) -> AsyncIterator[dict[str, Any]]:
            """A stream: charged when it ends, also when its reader stops early."""
            body = {
                "model": "gpt-4o-mini",
                "max_tokens": max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
                "messages": [{"role": "user", "content": prompt}],
            }
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        yield json.loads(line.removeprefix("data: "))

        @metered(manager, estimate=50, usage=lambda report: 5 * len(report), operation_type="report")
        def make_report(sections: int) -> list[str]:
            """Not async, priced in credits: 5 for each section."""
            return [f"section {number}" for number in range(sections)]

        with acting_as("alice"):
            answer = await ask("Why is the sky blue?", max_tokens=200)
            print(f"answered with {answer['usage']['completion_tokens']} tokens")
            chunks = [chunk async for chunk in tell("A story, please.", max_tokens=200)]
            print(f"streamed {len(chunks)} chunks")
            report = await asyncio.to_thread(make_report, 3)
            print(f"reported {len(report)} sections")

        with acting_as("bob"):
            try:
                await ask("And who pays for this one?", max_tokens=200)
            except InsufficientCreditsError as refusal:
                print(f"bob was refused: {refusal.code}; the provider was called {len(simulator.requests)} times")

        for row in reversed((await manager.list_transactions("alice")).transactions):
            print(f"{row.type:>10} {row.operation_type or '':<12} {row.amount:>6} -> {row.balance_after}")
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
