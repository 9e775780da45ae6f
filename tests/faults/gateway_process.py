"""One gateway of the harness, as a process. Callers name themselves: `Authorization: Bearer USER` or `USER/TEAM`."""

from __future__ import annotations

import asyncio
import logging

import uvicorn
from starlette.types import Scope

from ducto.gateway import Upstream, build_gateway
from ducto.middleware.headers import header_values
from ducto.middleware.identity import Identity
from tests.faults.books import Part, open_manager


def identify(scope: Scope) -> Identity | None:
    given = header_values(scope["headers"], b"authorization")
    if len(given) != 1 or not given[0].startswith(b"Bearer "):
        return None
    user_id, _, team_id = given[0].removeprefix(b"Bearer ").decode().partition("/")
    return Identity(user_id, team_id or None)


async def main(part: Part) -> None:
    async with open_manager(part) as manager:
        app = build_gateway(
            manager,
            openai=Upstream(part.provider_url, api_key="provider-key"),
            identify=identify,
            drain_seconds=2.0,
            connect_seconds=2.0,
            first_byte_seconds=10.0,
            idle_seconds=10.0,
        )
        config = uvicorn.Config(
            app, port=part.port, log_level="critical", access_log=False, timeout_graceful_shutdown=2
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main(Part.of_command_line()))
