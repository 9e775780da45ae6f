"""The provider that the gateways pass calls on to: the simulator, as a process."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import uvicorn

from ducto.testing.simulator import ProviderSimulator
from tests.faults.books import Part

#: The simulator remembers every request; nobody here asks for them.
_FORGET_SECONDS = 5.0


async def main(part: Part) -> None:
    simulator = ProviderSimulator()
    config = uvicorn.Config(simulator.app, port=part.port, log_level="critical", access_log=False, lifespan="off")
    forgetting = asyncio.create_task(_forget(simulator))
    try:
        await uvicorn.Server(config).serve()
    finally:
        forgetting.cancel()
        with suppress(asyncio.CancelledError):
            await forgetting


async def _forget(simulator: ProviderSimulator) -> None:
    while True:
        await asyncio.sleep(_FORGET_SECONDS)
        simulator.requests.clear()


if __name__ == "__main__":
    asyncio.run(main(Part.of_command_line()))
