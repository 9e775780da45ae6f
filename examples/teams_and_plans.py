"""Plans with an allowance and features, caps, and a team's pool. Run it with `python examples/teams_and_plans.py`.

The provider is a simulator in this process, with the metering in front of it: whoever calls it pays.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import Scope

from ducto import CreditManager, MemoryStore, MeteringMiddleware, SpendCap
from ducto.middleware import Identity
from ducto.testing.simulator import ProviderSimulator

PRICING: dict[str, Any] = {
    "models": {"gpt-4o-mini": {"unit": "credits", "input": 1_000_000, "output": 2_000_000}},
    "min_balance": 0,
    "default_plan": "free",
    "plans": {
        "free": {"id": "free", "free_allowance": 300, "max_concurrent": 2},
        "pro": {
            "id": "pro",
            "features": ["chat"],
            # Half the price.
            "rate_overrides": {"gpt-4o-mini": {"unit": "credits", "input": 500_000, "output": 1_000_000}},
        },
    },
}


class Site:
    """A client for each user, and what became of his calls."""

    def __init__(self, manager: CreditManager, simulator: ProviderSimulator) -> None:
        self._manager = manager
        self._simulator = simulator

    async def ask(self, who: Identity, *, feature: str | None = None) -> str:
        """One call as `who`: what it cost, or why it was refused."""

        def identify(scope: Scope) -> Identity:
            return who

        app = MeteringMiddleware(self._simulator.app, self._manager, identify=identify, feature=feature)
        body = {"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://app") as client:
            answer = await client.post("/v1/chat/completions", json=body)
        if answer.status_code == 200:
            return f"cost {answer.headers['x-ducto-cost']}, balance {answer.headers['x-ducto-balance']}"
        error = answer.json()["error"]
        return f"refused with {answer.status_code} {error['code']}"


async def plans(manager: CreditManager, site: Site) -> None:
    alice = Identity("alice")
    print("free plan:", await site.ask(alice), "(out of the allowance)")
    print("the same, with a feature of pro:", await site.ask(alice, feature="chat"))
    allowance = await manager.check_allowance("alice")
    print(f"allowance: {allowance.used} of {allowance.allowance} used")

    await manager.set_user_plan("alice", "pro")
    await manager.add_credits("alice", 1_000, "purchase", idempotency_key="payment-1")
    print("pro plan:", await site.ask(alice, feature="chat"))


async def caps(manager: CreditManager, site: Site) -> None:
    await manager.add_credits("bob", 10_000, "purchase", idempotency_key="payment-2")
    await manager.set_spend_cap(SpendCap(user_id="bob", cap_type="daily", limit=300, action="deny"))
    while "cost" in (seen := await site.ask(Identity("bob"))):
        pass
    print("bob, with 300 credits a day:", seen)


async def team(manager: CreditManager, site: Site) -> None:
    crew = await manager.create_team("crew", 1_000, idempotency_key="crew-1")
    assert crew.team_id is not None
    await manager.add_team_member(crew.team_id, "carol", "admin")
    await manager.add_team_member(crew.team_id, "dave", "member", spend_cap=300)
    print("carol, for the team:", await site.ask(Identity("carol", crew.team_id)))
    while "cost" in (seen := await site.ask(Identity("dave", crew.team_id))):
        pass
    print("dave, with 300 credits of the team's:", seen)
    print("a stranger, for the team:", await site.ask(Identity("eve", crew.team_id)))
    for member in await manager.get_team_members(crew.team_id):
        print(f"  {member.user_id} has spent {member.spent}")
    print("the pool:", (await manager.get_team_balance(crew.team_id)).balance)


async def main() -> None:
    async with MemoryStore() as store, CreditManager(store) as manager:
        await manager.publish_pricing(PRICING)
        site = Site(manager, ProviderSimulator())
        await plans(manager, site)
        await caps(manager, site)
        await team(manager, site)
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
