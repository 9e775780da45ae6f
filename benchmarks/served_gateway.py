"""The gateway as it is deployed: in a process of its own, before a memory store, served by uvicorn."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.stores.memory import MemoryStore

__all__ = ["KEY", "PATH", "PRICING", "ServedGateway", "start_gateway"]

PATH = "/v1/chat/completions"
KEY = "bench"
PRICING = {
    "version": 1,
    "models": {"m": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 1_000}},
}


async def _serve(pipe: Connection, provider_url: str, metered: bool) -> None:
    import uvicorn

    async with CreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("bench", 10**12, "purchase", idempotency_key="bench")
        upstream = Upstream(provider_url, api_key="provider")
        app: Any = build_gateway(manager, openai=upstream, keys={KEY: "bench"}, metered=metered)
        config = uvicorn.Config(app, port=0, log_level="error", access_log=False, backlog=2048)
        server = uvicorn.Server(config)
        # uvicorn binds the socket, as where it is deployed: on one that it is given, asyncio leaves Nagle's delay on.
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await serving


def _run(pipe: Connection, provider_url: str, metered: bool) -> None:
    try:
        asyncio.run(_serve(pipe, provider_url, metered))
    except KeyboardInterrupt:
        return


@dataclass(frozen=True, slots=True)
class ServedGateway:
    """A gateway that runs."""

    port: int
    pid: int

    def resident_kb(self) -> float:
        """Memory of the process that is in RAM."""
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in line)
        return float(line.split()[1])

    def cpu_seconds(self) -> float:
        """Time that the process has computed so far, for itself and in the kernel."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def start_gateway(provider_url: str, *, metered: bool) -> Iterator[ServedGateway]:
    """A gateway that runs until the block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, provider_url, metered), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield ServedGateway(ours.recv(), process.pid)
    finally:
        process.terminate()
        process.join(10)
        process.kill()
