"""What all clients have in common: whom they call for, how often they repeat a call, and their list."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from typing import Literal

from tests.faults.books import USERS, Part
from tests.faults.lists import Call, ClientList, Ending

__all__ = ["Attempt", "Client", "run_clients"]

#: No attempt of a call begins later than so after its first one. See `books.TTL_SECONDS`.
_REPEAT_SECONDS = 4.0
#: A key that is answered with "in flight" so often stays so until its hold ends; the client gives up.
_MOST_IN_FLIGHT = 3
_PAUSE_SECONDS = 0.25

#: What one attempt came to: an ending of the call, or a reason to repeat it.
Attempt = Ending | Literal["failed", "in flight"]


class Client(ABC):
    """One client, who makes calls one after the other, at a pace of its own."""

    #: A call is begun so long after the one before, or when that has ended.
    period_seconds: float

    def __init__(self, part: Part, number: int, acknowledged: ClientList, incarnation: str) -> None:
        self.part = part
        self.chance = random.Random(f"{part.seed}:{part.name}:{number}")
        self.name = f"{part.name}/{number}"
        self._prefix = f"{part.name}-{incarnation}-{number}"
        self._list = acknowledged
        self._made = 0

    @abstractmethod
    def next_call(self, key: str, user_id: str, team_id: str | None) -> Call:
        """Choose what to call, and know what it costs."""

    @abstractmethod
    async def attempt(self, call: Call) -> Attempt:
        """Make the call, or repeat it, with the same key."""

    async def run(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            self._made += 1
            next_at = time.monotonic() + self.period_seconds * self.chance.uniform(0.5, 1.5)
            team_id = self.chance.choice(self.part.team_ids) if self.chance.random() < 0.25 else None
            call = self.next_call(f"{self._prefix}-{self._made}", self.chance.choice(USERS), team_id)
            self._list.issue(call)
            await self._list.end(call, await self._until_answered(call))
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))

    async def _until_answered(self, call: Call) -> Ending:
        began, in_flight = time.monotonic(), 0
        while True:
            came = await self.attempt(call)
            if came == "in flight":
                in_flight += 1
            elif came != "failed":
                return came
            if in_flight >= _MOST_IN_FLIGHT or time.monotonic() + _PAUSE_SECONDS - began > _REPEAT_SECONDS:
                return "refused"
            await asyncio.sleep(_PAUSE_SECONDS)


async def run_clients(part: Part, kind: type[Client]) -> None:
    """Run the clients of a process until SIGTERM, and then until their last call has ended."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    incarnation = f"{os.getpid()}.{time.time_ns()}"
    acknowledged = ClientList(part.lists / f"{part.name}-{incarnation}.list")
    clients = [kind(part, number, acknowledged, incarnation) for number in range(part.clients)]
    await asyncio.gather(*(client.run(stopped) for client in clients))
    await stopped.wait()
