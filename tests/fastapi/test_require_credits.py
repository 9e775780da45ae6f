"""`RequireCredits`: what is held and charged for a path operation, however it ends."""

# ruff: noqa: N806 (`Call` is a type)
# Without `annotations` of the future: FastAPI would look for the names in them outside of the tests' functions.

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from ducto.errors import ConfigError, StoreError
from ducto.meter import MeteredCall
from ducto.middleware import Identity
from ducto.middleware.fastapi import REFUSAL_RESPONSES, CreditRoute, RefusalBody, RequireCredits, metered_items
from ducto.testing.serving import serve
from ducto.usage import UsageMetrics
from tests.fastapi.support import ALICE, BOB, client_of, current_user
from tests.middleware.support import START, Books, Caller

USAGE = UsageMetrics(input_tokens=10, output_tokens=7)
COST = 10 + 2 * 7


def app_with(books: Books, **options: Any) -> tuple[FastAPI, Any]:
    """An app, and the annotation of a parameter that is a metered call."""
    options = {"user": current_user, "amount": 500, "model": "m", **options}
    return FastAPI(), Annotated[MeteredCall, Depends(RequireCredits(books.manager, **options))]


async def test_recorded_usage_is_charged_by_the_model(books: Books) -> None:
    app, Call = app_with(books)

    @app.post("/ask")
    async def ask(call: Call) -> int:
        call.record(USAGE)
        return (await books.store.get_available("alice")).held

    async with client_of(app) as client:
        answer = await client.post("/ask", headers=ALICE)
    assert answer.json() == 500
    [row] = await books.transactions()
    assert (row.charged, row.estimated, row.operation_type, row.model) == (COST, False, "/ask", "m")


async def test_a_recorded_amount_is_charged(books: Books) -> None:
    app, Call = app_with(books)

    @app.post("/ask")
    def ask(call: Call) -> None:
        """Not async: it runs in a thread."""
        call.record(123)

    async with client_of(app) as client:
        await client.post("/ask", headers=ALICE)
    assert await books.spent() == 123


async def test_a_path_operation_that_is_not_async_can_settle_before_it_answers(books: Books) -> None:
    app, Call = app_with(books)

    @app.post("/ask")
    def ask(call: Call) -> int:
        call.record(USAGE)
        return books.manager.portal.call(call.settle, instead="await call.settle()").balance_after

    async with client_of(app) as client:
        assert (await client.post("/ask", headers=ALICE)).json() == START - COST
    assert len(await books.transactions()) == 1


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("error", [HTTPException(418, "no"), RuntimeError("the provider failed")])
async def test_one_that_raises_pays_for_what_was_recorded(books: Books, error: Exception, recorded: bool) -> None:
    app, Call = app_with(books)

    @app.post("/ask")
    async def ask(call: Call) -> None:
        if recorded:
            call.record(USAGE)
        raise error

    async with client_of(app) as client:
        answer = await client.post("/ask", headers=ALICE)
    assert answer.status_code == (418 if isinstance(error, HTTPException) else 500)
    assert await books.spent() == (COST if recorded else 0)


async def test_one_that_records_nothing_pays_by_the_missing_usage_policy(books: Books) -> None:
    app, Call = app_with(books)

    @app.post("/ask")
    async def ask(call: Call) -> None:
        return None

    async with client_of(app) as client:
        await client.post("/ask", headers=ALICE)
    [row] = await books.transactions()
    assert (row.charged, row.estimated) == (500, True)


async def test_a_cancelled_request_pays_nothing(books: Books) -> None:
    app, Call = app_with(books)
    begun = asyncio.Event()

    @app.post("/ask")
    async def ask(call: Call) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with client_of(app) as client:
        asking = asyncio.create_task(client.post("/ask", headers=ALICE))
        async with asyncio.timeout(5):
            await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await books.spent() == 0


class TestStreams:
    async def test_the_charge_comes_at_the_end_of_the_stream(self, books: Books) -> None:
        app, Call = app_with(books)
        within: list[tuple[int, int]] = []

        @app.post("/tell")
        async def tell(call: Call) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for part in ("a", "b", "c"):
                    within.append(((await books.store.get_available("alice")).held, await books.spent()))
                    yield part
                call.record(USAGE)

            return StreamingResponse(parts())

        async with client_of(app) as client:
            assert (await client.post("/tell", headers=ALICE)).text == "abc"
        assert within == [(500, 0)] * 3
        [row] = await books.transactions()
        assert (row.charged, row.estimated) == (COST, False)

    async def test_one_that_is_not_async(self, books: Books) -> None:
        app, Call = app_with(books)

        @app.post("/tell")
        def tell(call: Call) -> StreamingResponse:
            def parts() -> Iterator[str]:
                yield "a"
                call.record(USAGE)

            return StreamingResponse(parts())

        async with client_of(app) as client:
            await client.post("/tell", headers=ALICE)
        assert await books.spent() == COST

    async def test_one_that_fails_within_is_not_free(self, books: Books) -> None:
        app, Call = app_with(books)

        @app.post("/tell")
        async def tell(call: Call) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                yield "a"
                raise RuntimeError("the provider broke off")

            return StreamingResponse(parts())

        async with client_of(app) as client:
            await client.post("/tell", headers=ALICE)
        [row] = await books.transactions()
        assert (row.charged, row.estimated) == (500, True)

    @pytest.mark.parametrize("leaving", ["receive", "send"])
    async def test_a_client_who_leaves_pays(self, books: Books, leaving: Any) -> None:
        """Servers tell it in two ways; with `send`, the response raises where the dependency sees it."""
        app, Call = app_with(books)

        @app.post("/tell")
        async def tell(call: Call) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for number in range(1_000):
                    yield f"{number} "
                    await asyncio.sleep(0.001)
                call.record(USAGE)

            return StreamingResponse(parts())

        with suppress(ClientDisconnect):
            await Caller(app).post("/tell", {}, headers=ALICE, leave_after_chunks=3, leaving=leaving)
        [row] = await books.transactions()
        assert (row.charged, row.estimated) == (500, True)

    async def test_a_client_of_a_real_server_who_leaves_pays(self, books: Books) -> None:
        app, Call = app_with(books)
        ended = asyncio.Event()

        @app.post("/tell")
        async def tell(call: Call) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                try:
                    while True:
                        call.record(call.usage + 2 if isinstance(call.usage, int) else 2)
                        yield "word "
                        await asyncio.sleep(0.01)
                finally:
                    ended.set()

            return StreamingResponse(parts())

        async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
            async with client.stream("POST", "/tell", headers=ALICE) as answer:
                received = 0
                async for _ in answer.aiter_raw():
                    received += 1
                    if received == 3:
                        break
            async with asyncio.timeout(5):
                await ended.wait()
                while (await books.store.get_available("alice")).held:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        [row] = await books.transactions()
        assert not row.estimated
        assert 6 <= row.charged < 200

    @pytest.mark.parametrize("until", [None, 2])
    async def test_the_usage_of_a_providers_stream_is_found(self, books: Books, until: int | None) -> None:
        app, Call = app_with(books)
        chunks = [{"object": "chat.completion.chunk", "choices": [{"delta": {"content": "word"}}]}] * 4
        last = {
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": {"prompt_tokens": 10, "completion_tokens": 7},
        }

        async def provided() -> AsyncIterator[dict[str, Any]]:
            for number, chunk in enumerate([*chunks, last]):
                if number == until:
                    raise RuntimeError("cut")
                yield chunk

        @app.post("/tell")
        async def tell(call: Call) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                async for chunk in metered_items(call, provided()):
                    yield str(chunk)

            return StreamingResponse(parts())

        async with client_of(app) as client:
            await client.post("/tell", headers=ALICE)
        [row] = await books.transactions()
        if until is None:
            assert (row.charged, row.estimated) == (COST, False)
        else:
            assert (row.charged, row.estimated) == (500, True)


class TestRefusals:
    async def refused(self, books: Books, headers: dict[str, str] = ALICE, **options: Any) -> httpx.Response:
        app, Call = app_with(books, **options)
        ran = False

        @app.post("/ask", responses=REFUSAL_RESPONSES)
        async def ask(call: Call) -> None:
            nonlocal ran
            ran = True

        async with client_of(app) as client:
            answer = await client.post("/ask", headers=headers)
        assert not ran
        assert answer.status_code in REFUSAL_RESPONSES
        body = RefusalBody.model_validate(answer.json())
        assert body.detail.message
        documented = REFUSAL_RESPONSES[answer.status_code]["headers"]
        assert all(name in answer.headers for name in documented), answer.headers
        return answer

    async def test_not_enough_credits(self, books: Books) -> None:
        answer = await self.refused(books, amount=START + 1)
        assert answer.status_code == 402
        detail = answer.json()["detail"]
        assert (detail["code"], detail["required"], detail["available"]) == ("insufficient_credits", START + 1, START)
        assert answer.headers["x-should-retry"] == "false"

    async def test_nobody(self, books: Books) -> None:
        assert (await self.refused(books, headers={})).status_code == 401

    async def test_a_model_without_a_price(self, books: Books) -> None:
        answer = await self.refused(books, model="other", amount=None, max_tokens=5)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (400, "price_unknown")

    async def test_a_feature_that_the_plan_does_not_have(self, books: Books) -> None:
        answer = await self.refused(books, feature="summaries")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "feature_not_entitled")

    async def test_somebody_who_is_not_in_the_team(self, books: Books) -> None:
        team_id = (await books.manager.create_team("crew", 10_000)).team_id
        answer = await self.refused(books, user=lambda: Identity("alice", team_id))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "not_a_member")

    async def test_too_many_calls_at_once(self, books: Books) -> None:
        config = (await books.manager.get_active_pricing()).config  # type: ignore[union-attr]
        plans = {"small": {"id": "small", "max_concurrent": 1}}
        await books.manager.publish_pricing({**config.model_dump(exclude_none=True), "plans": plans})
        await books.manager.set_user_plan("alice", "small")
        held = await books.manager.reserve("alice", 10)
        answer = await self.refused(books)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        await books.manager.release("alice", str(held.reservation_id))

    async def test_a_store_that_does_not_answer(self, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
        async def down(*_: Any, **__: Any) -> Any:
            raise StoreError("the secret of the database", retryable=False)

        monkeypatch.setattr(books.store, "reserve_credits", down)
        answer = await self.refused(books)
        assert answer.status_code == 503
        assert "secret" not in answer.text

    async def test_a_key_that_was_charged(self, books: Books) -> None:
        async with books.manager.meter("alice", estimate=5, idempotency_key="k") as call:
            call.record(5)
        answer = await self.refused(books, idempotency_key=lambda: "k", amount=5, model=None, operation_type="call")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (409, "already_settled")


class TestWhatItDependsOn:
    async def test_the_user_and_the_estimate_have_dependencies_of_their_own(self, books: Books) -> None:
        class Question(BaseModel):
            text: str
            max_tokens: int

        def worst_case(question: Question) -> UsageMetrics:
            return UsageMetrics(model="m", input_tokens=len(question.text), output_tokens=question.max_tokens)

        app, Call = app_with(books, user=Depends(current_user), estimate=Depends(worst_case), amount=None)

        @app.post("/ask")
        async def ask(question: Question, call: Call) -> int:
            call.record(USAGE)
            return call.reservation.held

        async with client_of(app) as client:
            answer = await client.post("/ask", headers=BOB, json={"text": "1234", "max_tokens": 50})
        assert answer.json() == 4 + 2 * 50
        assert await books.spent("bob") == COST

    async def test_an_estimate_that_is_always_the_same(self, books: Books) -> None:
        app, Call = app_with(books, amount=None, estimate=UsageMetrics(model="m", output_tokens=30))

        @app.post("/ask")
        async def ask(call: Call) -> int:
            call.record(0)
            return call.reservation.held

        async with client_of(app) as client:
            assert (await client.post("/ask", headers=ALICE)).json() == 60

    async def test_the_bytes_of_the_body_and_max_tokens(self, books: Books) -> None:
        app, Call = app_with(books, amount=None, max_tokens=20)

        @app.post("/ask")
        async def ask(request: Request, call: Call) -> int:
            call.record(0)
            assert await request.body() == b"x" * 100
            return call.reservation.held

        async with client_of(app) as client:
            assert (await client.post("/ask", headers=ALICE, content=b"x" * 100)).json() == 100 + 40

    async def test_a_team_pays(self, books: Books) -> None:
        team_id = str((await books.manager.create_team("crew", 10_000)).team_id)
        await books.manager.add_team_member(team_id, "alice")
        app, Call = app_with(books, user=lambda: Identity("alice", team_id))

        @app.post("/ask")
        async def ask(call: Call) -> None:
            call.record(USAGE)

        async with client_of(app) as client:
            await client.post("/ask")
        assert (await books.manager.get_team_balance(team_id)).balance == 10_000 - COST
        assert await books.spent() == 0

    async def test_a_dependency_of_tests_takes_the_users_place(self, books: Books) -> None:
        app, Call = app_with(books)
        app.dependency_overrides[current_user] = lambda: "bob"

        @app.post("/ask")
        async def ask(call: Call) -> None:
            call.record(USAGE)

        async with client_of(app) as client:
            await client.post("/ask")
        assert await books.spent("bob") == COST

    @pytest.mark.parametrize(
        "options",
        [{"amount": None}, {"max_tokens": 5}, {"amount": None, "max_tokens": 0}, {"amount": True}, {"amount": -1}],
    )
    def test_exactly_one_worst_case(self, books: Books, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            app_with(books, **options)


@pytest.mark.parametrize("by_route_class", [False, True])
def test_openapi_documents_the_refusals_and_what_the_user_is_known_by(books: Books, by_route_class: bool) -> None:
    app, Call = app_with(books)
    if by_route_class:
        app.router.route_class = CreditRoute

    def deeper(call: Call) -> None:
        return None

    @app.post("/ask", responses=None if by_route_class else REFUSAL_RESPONSES)
    async def ask(used: Annotated[None, Depends(deeper)]) -> None:
        return None

    @app.get("/free", responses={404: {"description": "No such thing."}})
    async def free() -> None:
        return None

    schema = app.openapi()
    assert set(schema["paths"]["/free"]["get"]["responses"]) == {"200", "404"}
    operation = schema["paths"]["/ask"]["post"]
    assert {"402", "403", "429", "503"} <= set(operation["responses"])
    for status in ("402", "403", "429", "503"):
        body = operation["responses"][status]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/RefusalBody"}
    assert "Retry-After" in operation["responses"]["429"]["headers"]
    assert {"code", "message", "required", "available"} <= set(
        schema["components"]["schemas"]["RefusalDetail"]["properties"]
    )
    assert [parameter["name"] for parameter in operation["parameters"]] == ["authorization"]
