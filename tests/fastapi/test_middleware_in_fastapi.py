"""`MeteringMiddleware` in FastAPI apps: authentication, prefixes, and the start and end of the app."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.types import Scope

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware import MeteringMiddleware
from ducto.middleware.lifespan import credit_lifespan
from ducto.middleware.providers import OpenAIChat
from ducto.models import SetupResult
from ducto.stores.memory import MemoryStore
from ducto.testing.serving import serve
from tests.fastapi.support import ALICE, BOB, authenticate, client_of, current_user
from tests.middleware.support import BODIES, CHAT, Books

BODY = BODIES[CHAT]
ANSWER = {"object": "chat.completion", "usage": {"prompt_tokens": 10, "completion_tokens": 7}}
COST = 10 + 2 * 7


def identify(scope: Scope) -> str | None:
    """What `current_user` does, from the scope."""
    return authenticate(HTTPConnection(scope).headers.get("authorization"))


def with_chat(app: FastAPI, path: str = CHAT) -> FastAPI:
    @app.post(path)
    async def chat(request: Request, user: Annotated[str, Depends(current_user)]) -> dict[str, Any]:
        assert (await request.json())["model"] == "m"
        return {**ANSWER, "user": user}

    return app


async def test_the_identity_and_the_dependency_share_the_authentication(books: Books) -> None:
    app = with_chat(FastAPI(middleware=[Middleware(MeteringMiddleware, manager=books.manager, identify=identify)]))
    async with client_of(app) as client:
        answer = await client.post(CHAT, json=BODY, headers=BOB)
        assert (answer.json()["user"], answer.headers["x-ducto-cost"]) == ("bob", str(COST))
        assert (await client.post(CHAT, json=BODY)).status_code == 401
    assert (await books.spent("alice"), await books.spent("bob")) == (0, COST)


async def test_an_authentication_middleware_in_front_tells_who_calls(books: Books) -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
            user = authenticate(conn.headers.get("authorization"))
            return (AuthCredentials(), SimpleUser(user)) if user else None

    def identify_user(scope: Scope) -> str | None:
        user = scope["user"]
        return user.display_name if user.is_authenticated else None

    middleware = [
        Middleware(AuthenticationMiddleware, backend=Backend()),
        Middleware(MeteringMiddleware, manager=books.manager, identify=identify_user),
    ]
    async with client_of(with_chat(FastAPI(middleware=middleware))) as client:
        assert (await client.post(CHAT, json=BODY, headers=ALICE)).headers["x-ducto-cost"] == str(COST)
        assert (await client.post(CHAT, json=BODY)).status_code == 401
    assert await books.spent() == COST


async def test_a_dependency_that_refuses_after_the_reserve_costs_nothing(books: Books) -> None:
    app = FastAPI()
    app.add_middleware(MeteringMiddleware, manager=books.manager, identify=identify)

    def nobody() -> None:
        raise HTTPException(403, "not today")

    @app.post(CHAT, dependencies=[Depends(nobody)])
    async def chat() -> dict[str, Any]:
        return ANSWER

    async with client_of(app) as client:
        assert (await client.post(CHAT, json=BODY, headers=ALICE)).status_code == 403
    assert await books.spent() == 0


class TestUnderAPrefix:
    async def test_an_app_that_is_mounted(self, books: Books) -> None:
        models, main = with_chat(FastAPI()), FastAPI()
        models.add_middleware(MeteringMiddleware, manager=books.manager, identify=identify)
        main.mount("/llm", models)
        async with client_of(main) as client:
            answer = await client.post("/llm" + CHAT, json=BODY, headers=ALICE)
        assert answer.headers["x-ducto-cost"] == str(COST)

    async def test_behind_a_proxy_that_takes_the_prefix_away(self, books: Books) -> None:
        app = with_chat(FastAPI())
        app.add_middleware(MeteringMiddleware, manager=books.manager, identify=identify)
        async with client_of(app, root_path="/llm") as client:
            for path in (CHAT, "/llm" + CHAT):
                answer = await client.post(path, json=BODY, headers=ALICE)
                assert answer.headers["x-ducto-cost"] == str(COST), path
        assert await books.spent() == 2 * COST

    async def test_routes_of_a_router_with_a_prefix_are_named(self, books: Books) -> None:
        app = with_chat(FastAPI(), "/llm" + CHAT)
        app.add_middleware(
            MeteringMiddleware, manager=books.manager, identify=identify, routes={"/llm" + CHAT: OpenAIChat()}
        )
        async with client_of(app) as client:
            assert (await client.post("/llm" + CHAT, json=BODY, headers=ALICE)).headers["x-ducto-cost"] == str(COST)

    async def test_or_else_they_are_refused_and_not_free(self, books: Books) -> None:
        app = with_chat(FastAPI(), "/llm" + CHAT)
        app.add_middleware(MeteringMiddleware, manager=books.manager, identify=identify)
        async with client_of(app) as client:
            answer = await client.post("/llm" + CHAT, json=BODY, headers=ALICE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unmetered_route")


class Watched(MemoryStore):
    """Notes what is done with it as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def setup(self, database_url: str | None = None) -> SetupResult:
        self.done.append("set up")
        return await super().setup(database_url)

    async def aclose(self) -> None:
        self.done.append("closed")
        await super().aclose()


class TestLifespan:
    async def test_the_store_is_set_up_and_closed_after_the_last_charge(self) -> None:
        store = Watched()
        manager = CreditManager(store, maintain_every_seconds=None)

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            store.done.append("began")
            await manager.add_credits("alice", 100, "grant")
            yield {"greeting": "hello"}
            store.done.append("ended")

        app = FastAPI(lifespan=credit_lifespan(manager, inside=own))

        @app.get("/")
        async def charge(request: Request) -> str:
            async def late() -> None:
                while "ended" not in store.done:  # noqa: ASYNC110 - the app ends without telling
                    await asyncio.sleep(0.01)
                await store.charge_credits("alice", 30, idempotency_key="late")
                store.done.append("charged")

            manager.supervise(late)
            return str(request.state.greeting)

        async with serve(app) as url, httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).json() == "hello"
        assert store.done == ["set up", "began", "ended", "charged", "closed"]
        with pytest.raises(ConfigError, match="closed"):
            await manager.reserve("alice", 1)

    async def test_an_app_whose_store_cannot_be_set_up_does_not_start(self) -> None:
        class Broken(MemoryStore):
            async def setup(self, database_url: str | None = None) -> SetupResult:
                return SetupResult(success=False, errors=("no tables",))

        app = FastAPI(lifespan=credit_lifespan(CreditManager(Broken())))
        with pytest.raises(ConfigError, match="no tables"):
            async with app.router.lifespan_context(app):
                pytest.fail("it started")
        with pytest.raises(ConfigError, match="did not start"):
            async with serve(app):
                pytest.fail("it started")
