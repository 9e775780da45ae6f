"""Serving an ASGI app on loopback within the running event loop, for tests and demonstrations."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ducto.errors import ConfigError

if TYPE_CHECKING:
    from uvicorn import Server

__all__ = ["serve"]


@asynccontextmanager
async def serve(
    app: Any, *, host: str = "127.0.0.1", port: int = 0, shutdown_seconds: float = 2.0, websockets: bool = False
) -> AsyncIterator[str]:
    """Serve `app` with uvicorn, on a free port for `port` 0; yields the base URL, as `http://127.0.0.1:40123`.

    On leaving, connections that are still open have `shutdown_seconds` to end. WebSockets are spoken with
    `websockets=True`, which needs the package of that name. Raises `ConfigError` if uvicorn is not installed,
    the address cannot be had, or the app fails to start.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError("serve() needs uvicorn; install it with: pip install 'ducto[gateway]'") from error
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port.") from error
    # As TCP by name, for only then does asyncio send small packets at once: else each answer on a kept connection waits
    # for the caller's delayed acknowledgement, some 40 ms.
    listener = socket.socket(listener.family, listener.type, socket.IPPROTO_TCP, fileno=listener.detach())
    # An answer that is cut on purpose is logged by uvicorn as an error of the app, hence the level.
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        ws="auto" if websockets else "none",
        timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
    )
    server = _embedded(uvicorn.Server)(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _started(server, task)
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


async def _started(server: Server, task: asyncio.Task[None]) -> None:
    while not server.started:
        if task.done():
            raise ConfigError("The app did not start; its lifespan handler failed.") from task.exception()
        await asyncio.sleep(0.005)


def _embedded(server_class: type[Server]) -> type[Server]:
    """A server that leaves the program that it runs in alone: its signal handlers, and its running."""
    from contextlib import nullcontext

    class EmbeddedServer(server_class):  # type: ignore[valid-type,misc]
        def capture_signals(self) -> Any:
            return nullcontext()

        async def startup(self, sockets: Any = None) -> None:
            try:
                await super().startup(sockets=sockets)
            except SystemExit:  # So uvicorn says that the lifespan failed; here it ends the server alone.
                self.should_exit = True

    return EmbeddedServer
