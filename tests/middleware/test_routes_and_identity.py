"""What is metered, what is refused, and that nobody becomes somebody else by a header or a field."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ducto.errors import ConfigError
from ducto.middleware import trusted_header
from ducto.middleware.providers import DEFAULT_ROUTES, OpenAIChat
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, Books, Caller, cost_of


class Anything:
    """An app that answers every request, so that whatever reaches it would have been free."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(f"{scope.get('method', scope['type'])} {scope['path']}")
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"free work"})


VARIANTS = [
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1//chat///completions",
    "/V1/Chat/COMPLETIONS",
    "/v1/chat%2Fcompletions",
    "/v1/%63hat/completions",
    "/v1/%2563hat/completions",
    "/v1/./chat/completions",
    "/v1/x/../chat/completions",
    "/v1\\chat\\completions",
    "/v1/chat/completions;a=b",
    "/v1/chat/completions%3Fx=1",
    "/v1/chat/completions%20",
    "v1/chat/completions",
]


@pytest.mark.parametrize("path", VARIANTS)
async def test_other_spellings_of_a_route_are_metered(path: str, books: Books) -> None:
    answer = await Caller(books.door(Anything())).post(path, BODIES[CHAT])
    assert "x-ducto-reservation" in answer.headers
    assert await books.spent() > 0


@pytest.mark.parametrize("method", ["post", "Post"])
async def test_the_method_in_other_letters_is_metered(method: str, books: Books) -> None:
    await Caller(books.door(Anything())).post(CHAT, BODIES[CHAT], method=method)
    assert await books.spent() > 0


SUSPICIOUS = [
    "/api/v1/chat/completions",
    "/openai/deployments/x/chat/completions",
    "/v1/videos",
    "/v1/fine_tuning/jobs",
    "/v1/batches",
    "/v1/messages/batches",
    "/v1/responses/resp_1/cancel",
    "/v1/realtime/sessions",
    "/v1beta/models/gemini:embedContent",
    "/v1beta/models/gemini:batchGenerateContent",
    "/model/anthropic.claude/invoke-with-response-stream",
    "/v1/engines/davinci/completions",
    "/chat/completions",
    "/v2/rerank",
]


@pytest.mark.parametrize("path", SUSPICIOUS)
async def test_what_looks_like_a_model_route_is_refused(path: str, books: Books) -> None:
    app = Anything()
    answer = await Caller(books.door(app)).post(path, BODIES[CHAT])
    assert answer.status == 404
    assert b'"code": "unmetered_route"' in answer.body
    assert app.seen == []


@pytest.mark.parametrize("path", ["/v1" * 20_000, "/" + "%25" * 20_000 + "41", "/x/../" * 10_000, ":generate" * 7_000])
async def test_a_long_path_takes_no_time(path: str, books: Books) -> None:
    begun = time.perf_counter()
    await Caller(books.door(Anything())).post(path, {})
    assert time.perf_counter() - begun < 0.5


async def test_or_logged_by_choice(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    answer = await Caller(books.door(Anything(), unmetered="log")).post("/v1/batches", {})
    assert answer.status == 200
    assert "/v1/batches" in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/messages"),
        ("POST", "/users/7/images"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/credits"),
        ("GET", "/v1/models"),
        ("GET", CHAT),
        ("OPTIONS", CHAT),
    ],
)
async def test_everything_else_passes_untouched(method: str, path: str, books: Books) -> None:
    app = Anything()
    answer = await Caller(books.door(app), user=None).post(path, {}, method=method)
    assert answer.body == b"free work"
    assert not any(name.startswith("x-ducto") for name in answer.headers)
    assert app.seen == [f"{method} {path}"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "QUERY"])
async def test_other_methods_on_a_route_are_refused(method: str, books: Books) -> None:
    assert (await Caller(books.door(Anything())).post(CHAT, BODIES[CHAT], method=method)).status == 404


async def test_a_method_override_is_refused(books: Books) -> None:
    answer = await Caller(books.door(Anything())).post(
        CHAT, BODIES[CHAT], method="GET", headers={"X-HTTP-Method-Override": "POST"}
    )
    assert answer.status == 404


async def test_a_mounted_app_is_metered_below_its_prefix(books: Books, simulator: ProviderSimulator) -> None:
    answer = await Caller(books.door(simulator.app)).post("/llm" + CHAT, BODIES[CHAT], root_path="/llm")
    assert answer.status == 200
    assert await books.spent() == cost_of(BODIES[CHAT])


async def test_routes_of_ones_own(books: Books) -> None:
    door = books.door(Anything(), routes={**DEFAULT_ROUTES, "/my/model": OpenAIChat()})
    assert "x-ducto-reservation" in (await Caller(door).post("/my/model", BODIES[CHAT])).headers


@pytest.mark.parametrize("path", [CHAT, "/v1/realtime"])
async def test_a_websocket_to_a_model_is_closed(path: str, books: Books) -> None:
    app = Anything()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await books.door(app)({"type": "websocket", "path": path, "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert app.seen == []
    await books.door(app)({"type": "websocket", "path": "/chat-room", "headers": []}, receive, send)
    assert len(app.seen) == 1


SPOOFS = [
    {"X-User-Id": "bob"},
    {"X_User_Id": "bob"},
    {"x-user-id": "bob", "X-Forwarded-User": "bob"},
    {"x-litellm-call-id": "bob", "x-ducto-user": "bob"},
    {"X-Ducto-Reservation": "rsv_1"},
]


@pytest.mark.parametrize("headers", SPOOFS)
@pytest.mark.parametrize("path", BODIES)
async def test_no_header_or_field_changes_who_pays(
    path: str, headers: dict[str, str], books: Books, caller: Caller
) -> None:
    body = {**BODIES[path], "user": "bob", "metadata": {"user_id": "bob", "team_id": "t", "idempotency_key": "k"}}
    assert (await caller.post(path, body, headers=headers)).status == 200
    assert await books.spent("alice") == cost_of(body)
    assert await books.spent("bob") == 0


class TestTrustedHeader:
    def scope(self, *headers: tuple[str, str], client: Any = ("10.1.2.3", 9)) -> dict[str, Any]:
        return {"headers": [(name.encode(), value.encode()) for name, value in headers], "client": client}

    async def test_it_is_believed_from_a_peer_alone(self, books: Books, simulator: ProviderSimulator) -> None:
        door = books.door(simulator.app, identify=trusted_header("X-User", peers=["10.0.0.0/8"]))
        headers = {"X-User": "alice"}
        assert (await Caller(door).post(CHAT, BODIES[CHAT], headers=headers, client=("10.9.9.9", 1))).status == 200
        for client in [("11.0.0.1", 1), ("unix", 0), None]:
            assert (await Caller(door).post(CHAT, BODIES[CHAT], headers=headers, client=client)).status == 401
        assert (await Caller(door).post(CHAT, BODIES[CHAT], client=("10.9.9.9", 1))).status == 401

    @pytest.mark.parametrize(
        "headers",
        [
            [("X-User", "alice"), ("x-user", "bob")],
            [("X-User", "alice"), ("X_User", "bob")],
            [("X_User", "alice")],
        ],
    )
    async def test_duplicates_and_other_spellings_are_400(
        self, headers: list[tuple[str, str]], books: Books, simulator: ProviderSimulator
    ) -> None:
        door = books.door(simulator.app, identify=trusted_header("X-User", peers=["127.0.0.1"]))
        assert (await Caller(door).post(CHAT, BODIES[CHAT], headers=headers)).status == 400

    def test_a_team_and_a_mapped_address(self) -> None:
        identify = trusted_header("x-user", peers=["10.0.0.0/8"], team_header="x-team")
        found = identify(self.scope(("x-user", "alice"), ("x-team", "crew"), client=("::ffff:10.0.0.1", 1)))
        assert found is not None
        assert (found.user_id, found.team_id) == ("alice", "crew")

    @pytest.mark.parametrize("peers", [[], "10.0.0.1", ["not an address"]])
    def test_peers_must_be_given(self, peers: Any) -> None:
        with pytest.raises(ConfigError):
            trusted_header("x-user", peers=peers)


@pytest.mark.parametrize(
    "options",
    [
        {"unmetered": "maybe"},
        {"max_body_bytes": 0},
        {"drain_seconds": -1},
        {"idle_seconds": 0},
        {"routes": {}},
        {"routes": {"v1": OpenAIChat()}},
        {"identify": "alice"},
        {"answers": "redis"},
        {"missing_usage": "free"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    from ducto.manager import CreditManager
    from ducto.stores.memory import MemoryStore

    with pytest.raises(ConfigError):
        Books(MemoryStore(), CreditManager(MemoryStore())).door(Anything(), **options)
