"""A failover of Redis that loses what it had acknowledged: money is not moved by it, and readings are soon right."""

from __future__ import annotations

import asyncio
import secrets

from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.testing.servers.redis import RedisServer, start_redis
from tests.stores.proxy import CuttingProxy

USERS = [f"user-{number}" for number in range(20)]


async def until_it_follows(master: RedisServer, replica: RedisServer) -> None:
    async with asyncio.timeout(20):
        while replica.execute("DBSIZE") == 0 or replica.execute("DBSIZE") != master.execute("DBSIZE"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_a_failover_of_redis_forgets_moves_no_money() -> None:
    """The replica is cut off early, so that balances and replies of before are in it when it takes over."""
    with start_redis() as master, start_redis(settings=[("repl-diskless-sync-delay", "0")]) as replica:
        async with (
            MemoryStore() as books,
            CuttingProxy.to(master.port) as link,
            CuttingProxy.to(master.port) as address,
            RedisCacheStore(
                books,
                f"redis://127.0.0.1:{address.port}/0",
                prefix=f"failover-{secrets.token_hex(4)}",
                ttl_seconds=1.0,
            ) as front,
        ):
            for user in USERS:
                await front.add_credits(user, 100, idempotency_key="start")
                assert (await front.get_balance(user)).balance == 100
            await asyncio.to_thread(replica.execute, "REPLICAOF", "127.0.0.1", link.port)
            await until_it_follows(master, replica)
            await link.point_to(None)
            first = [await front.charge_credits(user, 60, idempotency_key="first") for user in USERS]
            assert [(await front.get_balance(user)).balance for user in USERS] == [40] * 20
            master.kill()
            await asyncio.to_thread(replica.execute, "REPLICAOF", "NO", "ONE")
            await address.point_to(replica.port)
            await asyncio.sleep(0.3)
            again = [await front.charge_credits(user, 60, idempotency_key="first") for user in USERS[:10]]
            assert [(one.transaction_id, one.replayed) for one in again] == [
                (one.transaction_id, True) for one in first[:10]
            ]
            second = [await front.charge_credits(user, 60, idempotency_key="second") for user in USERS]
            assert {one.error for one in second} == {"insufficient_credits"}
            assert (await front.reserve_credits(USERS[0], 40, "chat", min_balance=0)).ok
            assert replica.execute("DBSIZE") > 0
            await asyncio.sleep(1.2)  # No reading that is kept is older than `ttl_seconds`.
            assert [(await front.get_balance(user)).balance for user in USERS] == [40] * 20
            assert (await books.verify()).ok
