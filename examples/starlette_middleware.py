"""Model routes of a Starlette app, metered. Run it with `python examples/starlette_middleware.py`.

An authentication middleware says who calls, the metering middleware behind it who pays; the routes pass calls on to a
provider, here a simulator in this process. A WebSocket to a model is metered by a callback.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import httpx
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Scope
from starlette.websockets import WebSocket

from ducto import CreditManager, MemoryStore, MeteringMiddleware, UsageMetrics
from ducto.middleware.lifespan import credit_lifespan
from ducto.middleware.websocket import MeteredSocket, WebSocketData
from ducto.testing.simulator import ProviderSimulator

PRICING = {"models": {"gpt-4o-mini": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 16384}}}
API_KEYS: Mapping[str, str] = {"Bearer key-of-alice": "alice", "Bearer key-of-bob": "bob"}


class KeyAuthentication(AuthenticationBackend):
    """The app's own authentication."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        user_id = API_KEYS.get(conn.headers.get("authorization", ""))
        return (AuthCredentials(["authenticated"]), SimpleUser(user_id)) if user_id is not None else None


def identify(scope: Scope) -> str | None:
    """Who pays: whom the middleware in front has authenticated. `None` is answered with 401."""
    user = scope["user"]
    return user.display_name if user.is_authenticated else None


async def meter_realtime(socket: MeteredSocket) -> None:
    """A call for each connection, charged for what the model's messages tell."""
    call = await socket.open(estimate=UsageMetrics(model="gpt-4o-mini", output_tokens=2_000))
    words = 0

    def count(data: WebSocketData) -> None:
        nonlocal words
        words += json.loads(data)["usage"]["output_tokens"]
        call.record(UsageMetrics(model="gpt-4o-mini", output_tokens=words))

    await socket.run(on_send=count)


def make_app(manager: CreditManager, provider: httpx.AsyncClient) -> Starlette:
    async def chat(request: Request) -> Response:
        """Nothing here knows of credits."""
        answer = await provider.send(
            provider.build_request("POST", request.url.path, content=await request.body()), stream=True
        )

        async def parts() -> AsyncIterator[bytes]:
            async for part in answer.aiter_raw():
                yield part
            await answer.aclose()

        return StreamingResponse(parts(), answer.status_code, media_type=answer.headers["content-type"])

    async def realtime(websocket: WebSocket) -> None:
        """A model that speaks over a WebSocket: it answers with as many words as it was told."""
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_json({"text": text.upper(), "usage": {"output_tokens": len(text.split())}})

    async def credits(request: Request) -> Response:
        """An ordinary route; the metering lets it pass."""
        return JSONResponse((await manager.get_available(request.user.display_name)).model_dump(mode="json"))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            WebSocketRoute("/v1/realtime", realtime),
            Route("/credits", credits),
        ],
        middleware=[
            Middleware(AuthenticationMiddleware, backend=KeyAuthentication()),
            Middleware(MeteringMiddleware, manager=manager, identify=identify, websocket=meter_realtime),
        ],
        lifespan=credit_lifespan(manager),
    )


async def fund(manager: CreditManager) -> None:
    await manager.publish_pricing(PRICING)
    await manager.add_credits("alice", 10_000, "purchase", idempotency_key="payment-1")


def main() -> None:
    simulator = ProviderSimulator()
    transport = httpx.ASGITransport(app=simulator.app)
    manager = CreditManager(MemoryStore())
    provider = httpx.AsyncClient(transport=transport, base_url="http://provider")
    alice = {"authorization": "Bearer key-of-alice"}
    body = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}

    # A server such as uvicorn runs the app like this; here it is called without one.
    with TestClient(make_app(manager, provider)) as client:
        assert client.portal is not None
        client.portal.call(fund, manager)

        answer = client.post("/v1/chat/completions", json=body, headers=alice)
        print("answered:", answer.status_code, "cost", answer.headers["x-ducto-cost"])
        streamed = client.post("/v1/chat/completions", json={**body, "stream": True}, headers=alice)
        print("streamed:", streamed.text.count("data: "), "events, held", streamed.headers["x-ducto-held"])
        refused = client.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer key-of-bob"})
        print("bob:", refused.status_code, refused.json()["error"]["code"])
        unmetered = client.post("/v1/images/sketches", json=body, headers=alice)
        print("a route that is not metered:", unmetered.status_code, unmetered.json()["error"]["code"])

        with client.websocket_connect("/v1/realtime", headers=alice) as socket:
            socket.send_text("how are you today")
            print("over a WebSocket:", socket.receive_json()["text"])

        print("alice:", client.get("/credits", headers=alice).json())
        print(f"the books agree: {client.portal.call(manager.verify).ok}")


if __name__ == "__main__":
    main()
