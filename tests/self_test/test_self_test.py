"""The coverage self-test finds each way in which a route can fail to be metered, and passes on the gateway."""

# Without `annotations` of the future: FastAPI would look for the names in them outside of the tests' functions.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import Response, StreamingResponse

from ducto.errors import ConfigError
from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware import MeteringMiddleware
from ducto.middleware.fastapi import RequireCredits
from ducto.middleware.providers import OpenAIChat
from ducto.middleware.websocket import MeteredSocket
from ducto.stores.memory import MemoryStore
from ducto.testing import self_test
from ducto.testing.coverage import Canary, RouteResult, SelfTestReport, manager_of
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator
from tests.middleware.support import CHAT, PRICING, Books, open_books


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    async with open_books() as opened:
        await opened.manager.publish_pricing({**PRICING, "models": {"m": PRICING["models"]["m"]}})
        yield opened


@pytest.fixture
def simulator() -> ProviderSimulator:
    return ProviderSimulator()


class Site:
    """An app that passes calls on to the simulated provider, as one would write it."""

    def __init__(self, books: Books, simulator: ProviderSimulator) -> None:
        self.books = books
        self.simulator = simulator
        self.app = FastAPI()
        transport = httpx.ASGITransport(app=simulator.app)
        self.provider = httpx.AsyncClient(transport=transport, base_url="http://provider")

    def metered(self, **options: Any) -> "Site":
        self.app.add_middleware(
            MeteringMiddleware, manager=self.books.manager, **{"identify": lambda scope: "alice", **options}
        )
        return self

    def route(self, path: str, *, upstream: str = CHAT, media_type: str | None = None, to: Any = None) -> "Site":
        @(to or self.app).post(path)
        async def passed_on(request: Request) -> Response:
            sent = self.provider.build_request("POST", upstream, content=await request.body())
            answer = await self.provider.send(sent, stream=True)
            kind = media_type or answer.headers["content-type"]
            return StreamingResponse(answer.aiter_raw(), answer.status_code, media_type=kind)

        return self

    async def test(self, **options: Any) -> SelfTestReport:
        return await self_test(self.app, self.books.manager, **{"user": "alice", "provider": self.simulator, **options})


@pytest.fixture
def site(books: Books, simulator: ProviderSimulator) -> Site:
    return Site(books, simulator)


def verdicts(report: SelfTestReport) -> dict[tuple[str, str], str]:
    return {(one.path, one.mode): one.verdict for one in report.results}


def only(report: SelfTestReport, path: str, mode: str = "plain") -> RouteResult:
    [found] = [one for one in report.results if (one.path, one.mode) == (path, mode)]
    return found


async def test_the_gateway_is_metered_everywhere(books: Books, simulator: ProviderSimulator) -> None:
    async with serve(simulator.app) as provider:
        upstream = Upstream(provider, api_key="k")
        app = build_gateway(books.manager, openai=upstream, anthropic=upstream, keys={"key": "alice"})
        report = await self_test(
            app, books.manager, user="alice", headers={"authorization": "Bearer key"}, provider=simulator
        )
    assert report.ok, report.summary()
    found = verdicts(report)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"):
        for mode in ("plain", "stream"):
            assert found[path, mode] == "metered"
            assert only(report, path, mode).expected == only(report, path, mode).charged
    assert found["/v1/embeddings", "plain"] == "metered"
    assert found["/v1/batches", "plain"] == "refused"
    assert sum(one.charged for one in report.results) == await books.spent()


async def test_an_app_without_the_middleware_is_found_out(site: Site) -> None:
    report = await site.route(CHAT).test()
    assert verdicts(report) == {(CHAT, "plain"): "unmetered", (CHAT, "stream"): "unmetered"}
    assert not report.ok
    assert "MeteringMiddleware" in report.summary()
    assert (only(report, CHAT).charged, only(report, CHAT).expected) == (0, 13 + 2 * 8)


async def test_one_unmetered_route_among_metered_ones(site: Site) -> None:
    """Of all its routes only the one that goes around the middleware is found."""
    site.metered(unmetered="log").route(CHAT).route("/v1/messages", upstream="/v1/messages").route("/v2/rerank")
    report = await site.test()
    assert {one.path for one in report.problems} == {"/v2/rerank"}
    assert only(report, "/v2/rerank").verdict == "unmetered"
    assert only(report, "/v1/messages", "stream").verdict == "metered"


async def test_a_route_for_everything_is_found_out(site: Site) -> None:
    report = await site.route("/{path:path}").test()
    assert {"/v1/responses", "/v1/rerank", "/model/m/converse"} <= {one.path for one in report.problems}


async def test_a_route_that_does_not_look_like_a_models_is_named_and_can_be_given(site: Site) -> None:
    site.metered().route(CHAT).route("/ask")
    report = await site.test()
    assert report.ok
    assert report.not_tried == ("POST /ask",)
    body = {"model": "m", "max_tokens": 5, "messages": []}
    report = await site.test(canaries=[Canary(path="/ask", body=body)])
    assert [(one.path, one.verdict) for one in report.problems] == [("/ask", "unmetered")]
    assert report.not_tried == ()


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize(("metered", "verdict"), [(False, "unmetered"), (True, "refused")])
async def test_routes_below_a_prefix_are_found(site: Site, included: bool, metered: bool, verdict: str) -> None:
    """In an included router, and in an app that is mounted."""
    below: Any = APIRouter() if included else FastAPI()
    site.route(CHAT, to=below)
    if included:
        site.app.include_router(below, prefix="/llm")
    else:
        site.app.mount("/llm", below)
    if metered:
        site.metered()
    assert only(await site.test(), "/llm" + CHAT).verdict == verdict


async def test_a_route_whose_usage_is_not_read(site: Site) -> None:
    report = await site.metered().route(CHAT, media_type="text/plain").test()
    assert verdicts(report) == {(CHAT, "plain"): "estimated", (CHAT, "stream"): "estimated", **refusals(report)}


def refusals(report: SelfTestReport) -> dict[tuple[str, str], str]:
    return {where: verdict for where, verdict in verdicts(report).items() if verdict == "refused"}


async def test_a_provider_that_tells_no_usage(books: Books) -> None:
    site = Site(books, ProviderSimulator(default=Fault(usage="missing")))
    assert only(await site.metered().route(CHAT).test(), CHAT).verdict == "estimated"


async def test_a_route_that_is_metered_twice(site: Site) -> None:
    credits = RequireCredits(site.books.manager, user=lambda: "alice", amount=50)
    router = APIRouter(dependencies=[Depends(credits)])
    site.metered().route(CHAT, to=router).app.include_router(router)
    found = only(await site.test(), CHAT)
    assert (found.verdict, found.detail) == ("wrong_amount", "charged 2 times")


async def test_another_amount_than_the_price(site: Site) -> None:
    @site.app.post(CHAT)
    async def chat(
        request: Request,
        call: Annotated[MeteredCall, Depends(RequireCredits(site.books.manager, user=lambda: "alice", amount=50))],
    ) -> Any:
        call.record(1)
        return (await site.provider.post(CHAT, content=await request.body())).json()

    found = only(await site.test(), CHAT)
    assert (found.verdict, found.charged) == ("wrong_amount", 1)
    assert found.expected is not None
    assert found.expected > 1
    # Without the provider's own record, the usage in the answer says the same.
    assert only(await site.test(provider=None), CHAT).verdict == "wrong_amount"


async def test_a_hold_that_is_not_ended(site: Site) -> None:
    calls: list[MeteredCall] = []

    @site.app.post(CHAT)
    async def chat() -> dict[str, str]:
        calls.append(site.books.manager.meter("alice", estimate=50))
        await calls[-1].start()
        return {}

    report = await site.test(settle_seconds=0.3)
    assert verdicts(report) == {(CHAT, "plain"): "held", (CHAT, "stream"): "held"}
    for call in calls:
        await call.release()


async def test_what_could_not_be_tried_is_a_problem(site: Site) -> None:
    report = await site.metered(identify=lambda scope: None).route(CHAT).test()
    assert only(report, CHAT).verdict == "untested"
    assert "401 unauthenticated" in only(report, CHAT).detail


async def test_a_user_without_credits(site: Site) -> None:
    report = await site.metered(identify=lambda scope: "poor").route(CHAT).test(user="poor")
    assert "402 insufficient_credits" in only(report, CHAT).detail


async def test_a_refusal_is_known_in_every_dialect(site: Site) -> None:
    """Routes of formats that the middleware was not told to meter."""
    report = await site.metered(routes={CHAT: OpenAIChat()}).test()
    found = verdicts(report)
    for path in ("/v1/messages", "/v1beta/models/m:generateContent", "/model/m/converse"):
        assert found[path, "plain"] == "refused", path


async def test_a_route_that_fails(site: Site) -> None:
    @site.app.post(CHAT)
    async def chat() -> None:
        raise RuntimeError("broken")

    assert only(await site.metered().test(), CHAT).verdict == "failed"


class TestWebSockets:
    def add(self, site: Site) -> None:
        @site.app.websocket("/v1/realtime")
        async def realtime(websocket: WebSocket) -> None:
            await websocket.accept()
            async for _ in websocket.iter_text():
                await websocket.send_json({"type": "response.done"})

    async def test_one_that_is_free(self, site: Site) -> None:
        self.add(site)
        assert verdicts(await site.test()) == {("/v1/realtime", "websocket"): "unmetered"}

    async def test_one_that_is_refused(self, site: Site) -> None:
        self.add(site)
        found = only(await site.metered().test(), "/v1/realtime", "websocket")
        assert (found.verdict, found.status) == ("refused", 403)

    async def test_one_that_is_metered(self, site: Site) -> None:
        async def meter(socket: MeteredSocket) -> None:
            call = await socket.open(estimate=40)
            await socket.run(on_send=lambda data: call.record(7))

        self.add(site)
        found = only(await site.metered(websocket=meter).test(), "/v1/realtime", "websocket")
        assert (found.verdict, found.charged) == ("metered", 7)


async def test_the_lifespan_runs_unless_it_runs_already(books: Books) -> None:
    done: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        done.append("start")
        yield
        done.append("stop")

    app = FastAPI(lifespan=lifespan)
    assert not (await self_test(app, books.manager)).ok
    assert done == ["start", "stop"]
    await self_test(app, books.manager, run_lifespan=False)
    assert done == ["start", "stop"]


async def test_an_app_that_does_not_start(books: Books) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(ConfigError, match="no database"):
        await self_test(FastAPI(lifespan=lifespan), books.manager)


async def test_without_prices_nothing_can_be_said(simulator: ProviderSimulator) -> None:
    async with CreditManager(MemoryStore()) as manager:
        with pytest.raises(ConfigError, match="publish"):
            await self_test(FastAPI(), manager)


async def test_the_manager_of_an_app_is_found(books: Books) -> None:
    manager = books.manager
    direct = MeteringMiddleware(FastAPI(), manager, identify=lambda scope: "alice")
    noted, mounted, depending = FastAPI(), FastAPI(), FastAPI()
    noted.add_middleware(MeteringMiddleware, manager=manager, identify=lambda scope: "alice")
    mounted.mount("/llm", noted)
    router = APIRouter()

    @router.post("/ask")
    async def ask(call: Annotated[MeteredCall, Depends(RequireCredits(manager, user=lambda: "a", amount=1))]) -> None:
        return None

    depending.include_router(router)
    for app in (direct, noted, mounted, depending):
        assert manager_of(app) is manager
    assert manager_of(FastAPI()) is None


async def test_routes_of_the_middlewares_own_are_tried(site: Site) -> None:
    site.metered(routes={"/my/model": OpenAIChat()}).route("/my/model")
    report = await site.test()
    assert verdicts(report)["/my/model", "stream"] == "metered"
    assert report.ok, report.summary()
