"""A FastAPI app that meters in both ways. Run it with `python examples/fastapi_gateway.py`. Needs the extra `fastapi`.

The model route is metered by the middleware, which reads what it returns; a path operation of the app's own by the
dependency `RequireCredits`. One function says who calls. The provider is a simulator in this process. At the end the
app tests itself: is there a model route that does not cost anything?
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.types import Scope

from ducto import CreditManager, MemoryStore, MeteredCall, MeteringMiddleware, UsageMetrics
from ducto.middleware.fastapi import CreditRoute, RequireCredits
from ducto.middleware.lifespan import credit_lifespan
from ducto.testing import self_test
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

MODEL = "gpt-4o-mini"
PRICING = {"models": {MODEL: {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 16384}}}
API_KEYS: Mapping[str, str] = {"Bearer key-of-alice": "alice", "Bearer key-of-bob": "bob"}

simulator = ProviderSimulator()
provider = httpx.AsyncClient(transport=httpx.ASGITransport(app=simulator.app), base_url="http://provider")
manager = CreditManager(MemoryStore())


def authenticate(authorization: str | None) -> str | None:
    """The app's own authentication: who calls, or nobody."""
    return API_KEYS.get(authorization or "")


def identify(scope: Scope) -> str | None:
    """For the middleware, which runs before any dependency."""
    return authenticate(HTTPConnection(scope).headers.get("authorization"))


def current_user(authorization: Annotated[str | None, Header()] = None) -> str | None:
    """For the dependencies."""
    return authenticate(authorization)


class Text(BaseModel):
    text: str


class Summary(BaseModel):
    summary: str
    credits: int


app = FastAPI(lifespan=credit_lifespan(manager))
app.router.route_class = CreditRoute
app.add_middleware(MeteringMiddleware, manager=manager, identify=identify)
credits = RequireCredits(manager, user=current_user, model=MODEL, max_tokens=200)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Nothing here knows of credits: the middleware reads the request before, and the answer on its way out."""
    passed_on = provider.build_request("POST", "/v1/chat/completions", content=await request.body())
    answer = await provider.send(passed_on, stream=True)

    async def parts() -> AsyncIterator[bytes]:
        async for part in answer.aiter_raw():
            yield part
        await answer.aclose()

    return StreamingResponse(parts(), answer.status_code, media_type=answer.headers["content-type"])


@app.post("/summaries")
async def summarise(given: Text, call: Annotated[MeteredCall, Depends(credits)]) -> Summary:
    """Credits are held when this begins; it says what it used, and may settle before it answers."""
    messages = [{"role": "user", "content": f"Summarise: {given.text}"}]
    answer = await provider.post("/v1/chat/completions", json={"model": MODEL, "max_tokens": 200, "messages": messages})
    told: dict[str, Any] = answer.raise_for_status().json()
    call.record(
        UsageMetrics(input_tokens=told["usage"]["prompt_tokens"], output_tokens=told["usage"]["completion_tokens"])
    )
    receipt = await call.settle()
    return Summary(summary=told["choices"][0]["message"]["content"], credits=receipt.actual)


@app.get("/credits")
async def show_credits(user_id: Annotated[str | None, Depends(current_user)]) -> dict[str, Any]:
    """An ordinary route; the middleware lets it pass."""
    return (await manager.get_available(user_id or "nobody")).model_dump(mode="json")


async def main() -> None:
    async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", 10_000, "purchase", idempotency_key="payment-1")

        path = "/v1/chat/completions"
        body = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
        alice, bob = {"authorization": "Bearer key-of-alice"}, {"authorization": "Bearer key-of-bob"}
        first = await client.post(path, json=body, headers={**alice, "idempotency-key": "question-1"})
        print("answered:", first.status_code, "cost", first.headers["x-ducto-cost"])
        again = await client.post(path, json=body, headers={**alice, "idempotency-key": "question-1"})
        print("repeated:", again.headers["x-ducto-replayed"], "the same answer:", again.content == first.content)
        streamed = await client.post(path, json={**body, "stream": True}, headers=alice)
        print("streamed:", streamed.text.count("data: "), "events, held", streamed.headers["x-ducto-held"])

        summary = await client.post("/summaries", json={"text": "A long story."}, headers=alice)
        print("summarised for", summary.json()["credits"], "credits")
        refused = await client.post("/summaries", json={"text": "A long story."}, headers=bob)
        print("bob:", refused.status_code, refused.json()["detail"]["code"])
        schema = (await client.get("/openapi.json")).json()
        print("documented:", ", ".join(schema["paths"]["/summaries"]["post"]["responses"]))

        print("alice:", (await client.get("/credits", headers=alice)).json())
        report = await self_test(app, manager, user="alice", headers=alice, provider=simulator, run_lifespan=False)
        print(f"every model route is metered: {report.ok}; not tried: {', '.join(report.not_tried)}")
        print(f"the books agree: {(await manager.verify()).ok}")


if __name__ == "__main__":
    asyncio.run(main())
