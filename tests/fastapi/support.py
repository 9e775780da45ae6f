"""Authentication of the apps under test, as an app would have it, and a client without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Header

KEYS = {"Bearer key-of-alice": "alice", "Bearer key-of-bob": "bob"}
ALICE = {"authorization": "Bearer key-of-alice"}
BOB = {"authorization": "Bearer key-of-bob"}


def authenticate(authorization: str | None) -> str | None:
    return KEYS.get(authorization or "")


async def current_user(authorization: Annotated[str | None, Header()] = None) -> str | None:
    """A dependency: who calls."""
    return authenticate(authorization)


@asynccontextmanager
async def client_of(app: FastAPI | Any, *, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client
