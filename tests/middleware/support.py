"""A client that speaks ASGI to an app as a server would, and books to check at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from ducto.manager import CreditManager
from ducto.middleware import Identity, MeteringMiddleware
from ducto.stores.memory import MemoryStore
from ducto.testing.simulator import Fault, ProviderSimulator, input_tokens_of

#: One credit for a token of input, two for one of output.
PRICING: dict[str, Any] = {
    "version": 1,
    "min_balance": 0,
    "models": {
        "m": {"unit": "credits", "input": 1_000_000, "output": 2_000_000, "max_output_tokens": 1_000},
        "emb": {"unit": "credits", "input": 1_000_000},
    },
}
MESSAGES = [{"role": "user", "content": "How much is the fish?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES, "max_tokens": 50},
    "/v1/completions": {"model": "m", "prompt": "Once", "max_tokens": 50},
    "/v1/responses": {"model": "m", "input": "Once upon", "max_output_tokens": 50},
    "/v1/messages": {"model": "m", "max_tokens": 50, "messages": MESSAGES},
}
CHAT = "/v1/chat/completions"
#: What any of the users above starts with.
START = 100_000


def cost_of(body: dict[str, Any], output_tokens: int = 8) -> int:
    """The price of a correct answer of the simulator."""
    return input_tokens_of(body) + 2 * output_tokens


@dataclass
class Books:
    """Store and manager of one test, with the users alice and bob."""

    store: MemoryStore
    manager: CreditManager

    async def spent(self, user: str = "alice") -> int:
        return START - (await self.store.get_balance(user)).balance

    async def transactions(self, user: str = "alice") -> list[Any]:
        page = await self.store.list_transactions(user)
        return [row for row in page.transactions if row.type == "deduction"]

    def door(self, app: Any, **options: Any) -> MeteringMiddleware:
        return MeteringMiddleware(app, self.manager, **{"identify": user_of, **options})


def user_of(scope: Any) -> Identity | str | None:
    return scope.get("user")


@asynccontextmanager
async def open_books(**options: Any) -> AsyncIterator[Books]:
    """Books that are checked at the end: no hold left, and every invariant holds."""
    store = MemoryStore()
    async with CreditManager(store, maintain_every_seconds=None, **options) as manager:
        await manager.setup()
        await manager.publish_pricing(PRICING)
        for user in ("alice", "bob"):
            await manager.add_credits(user, START, "purchase", idempotency_key="start")
        yield Books(store, manager)
    for user in ("alice", "bob"):
        standing = await store.get_available(user)
        assert standing.held == 0, f"{user} has {standing.held} credits held"
    found = await store.verify()
    assert found.ok, found.faults


@dataclass
class Answer:
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """Sends requests to an ASGI app in this process, as `user`, and can leave at any moment."""

    app: Any
    user: Any = "alice"

    async def post(
        self,
        path: str,
        body: dict[str, Any] | bytes,
        *,
        headers: dict[str, str] | Sequence[tuple[str, str]] = (),
        fault: Fault | None = None,
        leave_after_chunks: int | None = None,
        leaving: Literal["receive", "send"] = "receive",
        leave_after_seconds: float | None = None,
        **scope: Any,
    ) -> Answer:
        """`leaving` says how the server tells the app: by `http.disconnect`, or also by an `OSError` from `send`."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        full = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4" if leaving == "send" else "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in pairs],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
            "user": self.user,
            **scope,
        }
        answer = Answer()
        left = asyncio.Event()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": raw, "more_body": False}
            if leaving == "send":
                await asyncio.Event().wait()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if left.is_set():
                if leaving == "send":
                    raise OSError("the connection is closed")
                return
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                if message.get("body"):
                    answer.chunks.append(message["body"])
                answer.ended = not message.get("more_body", False)
                if answer.ended or len(answer.chunks) == leave_after_chunks:
                    left.set()
            await asyncio.sleep(0)

        if leave_after_seconds is not None:
            asyncio.get_running_loop().call_later(leave_after_seconds, left.set)
        if leave_after_chunks == 0:
            left.set()
        # A server that raises from `send` expects its own exception back.
        with suppress(OSError) if leaving == "send" else nullcontext():
            await self.app(full, receive, send)
        return answer


def scripted(simulator: ProviderSimulator, **fields: Any) -> None:
    simulator.script(Fault(**fields))


def app_sending(
    chunks: Sequence[bytes], *, media_type: str = "text/event-stream", status: int = 200
) -> Callable[..., Any]:
    """An app that reads the request and answers with these chunks."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", media_type.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app
