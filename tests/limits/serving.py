"""A gateway in a process of its own, so that its memory can be watched: `python -m tests.limits.serving h11`.

Prints its address. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from ducto.gateway import Upstream, build_gateway
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import open_books


async def main(http: str) -> None:
    async with open_books() as books, serve(ProviderSimulator().app) as provider:
        upstream = Upstream(provider + "/v1", api_key="of-the-provider")
        app = build_gateway(books.manager, openai=upstream, keys={"key-of-alice": "alice"}, drain_seconds=0.2)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, http=http, log_level="critical", access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = server.force_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
