"""Sending canaries to an ASGI app in this process, and starting and stopping it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

from ducto.errors import ConfigError
from ducto.testing.coverage.canaries import Canary

__all__ = ["SocketAnswer", "running", "send_canary", "send_to_socket"]

#: How long a WebSocket has to answer a message.
SOCKET_SECONDS = 2.0


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Start `app` by ASGI's lifespan, and stop it. Raises `ConfigError` if it does not start."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    started: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if not started.done():
            started.set_result(message)

    async def run() -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, send)
        except Exception:  # ASGI: an app that raises here has no lifespan, unless it had begun one.
            if started.done():
                raise
        finally:
            if not started.done():
                started.set_result(None)

    await inbox.put({"type": "lifespan.startup"})
    task = asyncio.create_task(run())
    answer = await started
    if answer is not None and answer["type"] == "lifespan.startup.failed":
        await asyncio.gather(task, return_exceptions=True)
        raise ConfigError(f"The app did not start: {answer.get('message', '').strip() or 'its lifespan failed'}")
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await asyncio.gather(task, return_exceptions=True)


async def send_canary(app: ASGIApp, canary: Canary, *, headers: Mapping[str, str]) -> httpx.Response:
    """The app's whole answer. What it raises is an answer of 500."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://canary") as client:
        sent: dict[str, Any] = {"content": canary.body} if isinstance(canary.body, bytes) else {"json": canary.body}
        return await client.post(canary.path, headers={**headers, **canary.headers}, **sent)


@dataclass(slots=True)
class SocketAnswer:
    """What became of a WebSocket: `accepted`, or refused with `status`; and whether it said anything."""

    accepted: bool = False
    status: int | None = None
    spoke: bool = False


async def send_to_socket(app: ASGIApp, path: str, *, headers: Mapping[str, str]) -> SocketAnswer:
    """Open a WebSocket, say something that asks for work, wait for what comes back, and leave."""
    answer = SocketAnswer()
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    answered, over = asyncio.Event(), asyncio.Event()
    asked = False

    async def receive() -> Message:
        nonlocal asked
        message = await inbox.get()
        asked = asked or message["type"] == "websocket.receive"
        return message

    async def send(message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            answer.accepted = True
            await inbox.put({"type": "websocket.receive", "text": '{"type": "response.create"}'})
        elif kind == "websocket.send":
            answer.spoke = True
            if asked:
                answered.set()
        else:
            answer.status = message.get("status", answer.status)
            if kind != "websocket.http.response.start":
                over.set()

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("canary", 80),
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    await inbox.put({"type": "websocket.connect"})
    task = asyncio.create_task(_call(app, scope, receive, send))
    waiting = [task, asyncio.create_task(answered.wait()), asyncio.create_task(over.wait())]
    await asyncio.wait(waiting, timeout=SOCKET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    await inbox.put({"type": "websocket.disconnect", "code": 1000, "reason": ""})
    with suppress(TimeoutError):
        async with asyncio.timeout(SOCKET_SECONDS):
            await asyncio.wait((task,))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return answer


async def _call(app: ASGIApp, scope: dict[str, Any], receive: Any, send: Any) -> None:
    with suppress(Exception):  # What the app says before it fails is what counts.
        await app(scope, receive, send)
