"""One of two processes that write to and read the same accounts in turn; run by test_two_processes.py.

Takes a Postgres URL, a Redis URL, a prefix, the number of rounds, and the descriptor of a socket to the other one. A
turn arrives as `user balance`: the other has just been told that this is the balance. Prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import asdict

from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.redis.link import RedisLink


class Turns:
    """Reads what the other has written, writes, reads what it has written itself, and tells the other."""

    def __init__(self, store: RedisCacheStore, rounds: int) -> None:
        self.store = store
        self.left = rounds
        self.stale: list[str] = []

    async def take(self, user_id: str, told: int, writer: asyncio.StreamWriter) -> None:
        await self.compare("the other's write", user_id, told)
        added = await self.store.add_credits(user_id, 1)
        assert added.ok, added
        await self.compare("its own write", user_id, added.new_balance)
        self.left -= 1
        writer.write(f"{user_id} {added.new_balance}\n".encode())

    async def compare(self, what: str, user_id: str, expected: int) -> None:
        balance, available = await asyncio.gather(self.store.get_balance(user_id), self.store.get_available(user_id))
        if not balance.balance == available.balance == expected:
            self.stale.append(f"{user_id}: {balance.balance} and {available.balance} after {what} of {expected}")

    async def read_all_the_time(self, users: list[str]) -> None:
        """Loads that race with the writes."""
        while True:
            for user_id in users:
                await self.store.get_balance(user_id)
                await asyncio.sleep(0.001)


async def main(dsn: str, redis_url: str, prefix: str, rounds: int, lanes: int, begins: bool, descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    # No write is ever not told to Redis in time, so that the first promise holds for all of them.
    link = RedisLink(redis_url, budget_seconds=20.0)
    users = [f"user{number}" for number in range(lanes)]
    async with (
        PostgresStore(dsn, acquire_timeout_seconds=20.0) as inner,
        RedisCacheStore(inner, link, prefix=prefix) as store,
    ):
        turns = Turns(store, rounds)
        background = asyncio.create_task(turns.read_all_the_time(users))
        running: set[asyncio.Task[None]] = set()
        for user_id in users if begins else ():
            writer.write(f"{user_id} 0\n".encode())
        while turns.left > 0 and (line := await reader.readline()):
            user_id, told = line.decode().split()
            task = asyncio.create_task(turns.take(user_id, int(told), writer))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        # The other may still write: who ends first listens on.
        writer.write_eof()
        while await reader.readline():
            pass
        writer.close()
        background.cancel()
        await asyncio.wait((background,))
        await asyncio.sleep(0)
    await link.aclose()
    counters = {**asdict(store.counters), "failures": link.counters.failures}
    print(json.dumps({"rounds": rounds - turns.left, "stale": turns.stale[:20], **counters}))


if __name__ == "__main__":
    _dsn, _redis, _prefix, _rounds, _lanes, _begins, _descriptor = sys.argv[1:]
    asyncio.run(main(_dsn, _redis, _prefix, int(_rounds), int(_lanes), _begins == "begins", int(_descriptor)))
