"""The Anthropic SDK over a metered transport, paid by a team. Run it with `python examples/anthropic_sdk.py`.

The provider is a simulator in this process; leave `base_url` away to spend real money. Needs anthropic, uvicorn.
"""

from __future__ import annotations

import asyncio

import anthropic
import httpx2

from ducto import CreditManager, MemoryStore
from ducto.middleware.transport import TransportOptions, metered_transport
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator

PRICING = {
    "models": {"claude-sonnet": {"unit": "usd", "input": "3", "output": "15"}},
    "plans": {"basic": {"features": ["chat"]}},
    "default_plan": "basic",
}


def member(request: httpx2.Request) -> str | None:
    """Who makes the call, told with it by `extra_headers`. Nothing that an end user can write belongs here."""
    return request.headers.get("x-member")


async def ask(client: anthropic.AsyncAnthropic, who: str, *, max_tokens: int = 300) -> anthropic.types.Message:
    return await client.messages.create(
        model="claude-sonnet",
        max_tokens=max_tokens,
        messages=[{"role": "user", "content": "A story, please."}],
        extra_headers={"x-member": who},
    )


async def main() -> None:
    simulator = ProviderSimulator()
    async with MemoryStore() as store, CreditManager(store) as manager, serve(simulator.app) as provider:
        await manager.publish_pricing(PRICING)
        team = (await manager.create_team("writers", 20_000)).team_id
        assert team is not None
        await manager.add_team_member(team, "alice")

        transport = metered_transport(
            manager, user_id=member, team_id=team, library="httpx2", options=TransportOptions(feature="chat")
        )
        http_client = httpx2.AsyncClient(transport=transport)
        async with anthropic.AsyncAnthropic(base_url=provider, api_key="simulated", http_client=http_client) as client:
            simulator.script(Fault(status=529))  # The SDK repeats the call; only the success is charged.
            message = await ask(client, "alice")
            print("answered:", message.usage.output_tokens, "tokens after", len(simulator.requests), "attempts")

            async with client.messages.stream(
                model="claude-sonnet",
                max_tokens=300,
                messages=[{"role": "user", "content": "A longer one."}],
                extra_headers={"x-member": "alice"},
            ) as stream:
                print("streamed:", len("".join([text async for text in stream.text_stream])), "characters")

            for who, tokens in (("mallory", 300), ("alice", 5_000)):
                try:
                    await ask(client, who, max_tokens=tokens)
                except anthropic.APIStatusError as refusal:
                    error = refusal.response.json()["error"]
                    print(f"{who} was refused: {refusal.status_code} {error['type']}, {error['code']}")

        standing = await manager.get_team_balance(team)
        print(f"the team has {standing.balance} left, {standing.held} held")
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
