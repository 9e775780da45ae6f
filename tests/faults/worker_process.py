"""Clients that use the library itself, many in a process, which is killed like a server."""

from __future__ import annotations

import asyncio
import logging

from ducto import CreditManager, UsageMetrics
from ducto.errors import AlreadySettledError, CallInFlightError, StoreError
from tests.faults.books import MODEL, Part, cost_of, open_manager
from tests.faults.clients import Attempt, Client, run_clients
from tests.faults.lists import Call


def library_clients(manager: CreditManager) -> type[Client]:
    """Clients of this manager."""

    class LibraryClient(Client):
        period_seconds = 0.04
        _usage: UsageMetrics

        def next_call(self, key: str, user_id: str, team_id: str | None) -> Call:
            given, written = self.chance.randint(1, 2_000), self.chance.randint(0, 500)
            self._usage = UsageMetrics(model=MODEL, input_tokens=given, output_tokens=written)
            return Call(self.name, key, user_id, team_id, cost_of(given, written))

        async def attempt(self, call: Call) -> Attempt:
            most = UsageMetrics(model=MODEL, input_tokens=2_000, output_tokens=500)
            try:
                async with manager.meter(
                    call.user_id, estimate=most, idempotency_key=call.key, team_id=call.team_id
                ) as metered:
                    if self.chance.random() < 0.2:
                        await asyncio.sleep(self.chance.uniform(0.0, 0.1))
                    metered.record(self._usage)
            except AlreadySettledError:
                return "settled"
            except CallInFlightError:
                return "in flight"
            except StoreError:
                return "failed"
            # Also where the store could not be reached for the charge: the caller has his answer, and owes for it.
            return "answered"

    return LibraryClient


async def main(part: Part) -> None:
    async with open_manager(part) as manager:
        if part.clients == 0:  # It is here for its journal alone, which is replayed when the manager begins.
            await manager.ping()
        await run_clients(part, library_clients(manager))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main(Part.of_command_line()))
