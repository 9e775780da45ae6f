"""Reserve, run, deduct: one metered call on the memory store. Run it with `python examples/quickstart.py`.

The "model" is a function of this file, so that nothing is called over the network.
"""

from __future__ import annotations

import asyncio

from ducto import CreditManager, MemoryStore, UsageMetrics
from ducto.errors import InsufficientCreditsError

#: Dollars per 1,000,000 tokens; a credit is a millionth of a dollar unless the config says otherwise.
PRICING = {"models": {"gpt-4o": {"unit": "usd", "input": "2.50", "cache_read": "1.25", "output": "10"}}}


async def ask_the_model() -> UsageMetrics:
    """What a provider would answer with: here only the usage of it, part of the input from its cache."""
    return UsageMetrics(model="gpt-4o", input_tokens=400, cache_read_tokens=600, output_tokens=120)


async def main() -> None:
    async with MemoryStore() as store, CreditManager(store) as manager:
        await manager.setup()
        await manager.publish_pricing(PRICING, "first prices")
        # The id of the payment is the key: a payment provider delivers its events more than once.
        await manager.add_credits("alice", 20_000, "purchase", idempotency_key="payment-1001")
        await manager.add_credits("alice", 20_000, "purchase", idempotency_key="payment-1001")

        worst_case = UsageMetrics(model="gpt-4o", input_tokens=1_000, output_tokens=500)
        async with manager.meter("alice", estimate=worst_case, idempotency_key="request-1") as call:
            print(f"held: {call.reservation.held}, available meanwhile: {call.reservation.available}")
            call.record(await ask_the_model())
        receipt = await call.settle()  # The call has ended; this gives the same receipt again.
        print(f"charged: {receipt.actual}, balance: {receipt.balance_after}")

        cost = await manager.price(await ask_the_model())
        for part in cost.components:
            print(f"  {part.name}: {part.quantity} for {part.amount} credits")

        try:
            await manager.reserve("alice", 1_000_000)
        except InsufficientCreditsError as refusal:
            print(f"refused with {refusal.http_status} {refusal.code}: {refusal.details}")

        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
