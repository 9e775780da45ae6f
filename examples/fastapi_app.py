"""A FastAPI app whose model route is metered. Run it with `python examples/fastapi_app.py`.

The app passes calls on to a provider, here a simulator in this process; two callers then use the app. Needs fastapi.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Scope

from ducto import CreditManager, MemoryStore, MeteringMiddleware
from ducto.testing.simulator import ProviderSimulator

PRICING = {"models": {"gpt-4o-mini": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 16384}}}
API_KEYS: Mapping[bytes, str] = {b"Bearer key-of-alice": "alice", b"Bearer key-of-bob": "bob"}


def identify(scope: Scope) -> str | None:
    """Who calls. This is the app's own authentication; `None` is answered with 401."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return API_KEYS.get(given[0]) if len(given) == 1 else None


def make_app(manager: CreditManager, provider: httpx.AsyncClient) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeteringMiddleware, manager=manager, identify=identify)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        """Nothing here knows of credits: the middleware reads the request before and the answer on its way out."""
        passed_on = provider.build_request(
            "POST", "/v1/chat/completions", content=await request.body(), headers={"content-type": "application/json"}
        )
        answer = await provider.send(passed_on, stream=True)
        kind = answer.headers["content-type"]
        if not kind.startswith("text/event-stream"):
            return Response(await answer.aread(), answer.status_code, media_type=kind)

        async def parts() -> AsyncIterator[bytes]:
            async for part in answer.aiter_raw():
                yield part
            await answer.aclose()

        return StreamingResponse(parts(), answer.status_code, media_type=kind)

    @app.get("/credits")
    async def credits(request: Request) -> Response:
        """An ordinary route; the middleware lets it pass."""
        user_id = identify(request.scope)
        if user_id is None:
            return JSONResponse({"error": "who are you?"}, status_code=401)
        return JSONResponse((await manager.get_available(user_id)).model_dump(mode="json"))

    return app


async def main() -> None:
    simulator = ProviderSimulator()
    async with (
        MemoryStore() as store,
        CreditManager(store) as manager,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=simulator.app), base_url="http://provider") as provider,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=make_app(manager, provider)), base_url="http://app"
        ) as client,
    ):
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 10_000, "purchase", idempotency_key="payment-1")

        url = "/v1/chat/completions"
        body = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
        alice = {"authorization": "Bearer key-of-alice", "idempotency-key": "question-1"}
        first = await client.post(url, json=body, headers=alice)
        print("answered:", first.status_code, "cost", first.headers["x-ducto-cost"])
        again = await client.post(url, json=body, headers=alice)
        print("repeated:", again.headers["x-ducto-replayed"], "the same answer:", again.content == first.content)

        alice = {"authorization": "Bearer key-of-alice"}
        streamed = await client.post(url, json={**body, "stream": True}, headers=alice)
        print("streamed:", streamed.text.count("data: "), "events, held", streamed.headers["x-ducto-held"])

        refused = await client.post(url, json=body, headers={"authorization": "Bearer key-of-bob"})
        print("bob:", refused.status_code, refused.json()["error"]["code"])
        unknown = await client.post(url, json=body)
        print("nobody:", unknown.status_code, unknown.json()["error"]["code"])

        print("calls of the provider:", len(simulator.requests))
        print("alice:", (await client.get("/credits", headers=alice)).json())
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
