"""What stands for the reader's own app, which the page about the self-test calls `myapp.main:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from ducto import CreditManager, MemoryStore, MeteringMiddleware

manager = CreditManager(MemoryStore())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await manager.publish_pricing({"models": {"gpt-4o": {"unit": "credits", "input": 1000000, "output": 2000000}}})
    await manager.add_credits("alice", 1_000_000, "grant")
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    MeteringMiddleware,
    manager=manager,
    identify=lambda scope: {b"Bearer key-of-alice": "alice"}.get(dict(scope["headers"]).get(b"authorization")),
)


@app.post("/v1/embeddings")
async def embed() -> dict[str, Any]:
    return {"object": "list", "data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}
