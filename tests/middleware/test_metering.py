"""What a call is charged, by how its answer ends and what it says."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from ducto.middleware.providers import DEFAULT_ROUTES
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, PRICING, Books, Caller, app_sending, cost_of, scripted

ROUTES = pytest.mark.parametrize("path", BODIES)


@ROUTES
async def test_a_plain_answer_is_charged_by_its_usage_and_says_so(path: str, books: Books, caller: Caller) -> None:
    answer = await caller.post(path, BODIES[path])
    cost = cost_of(BODIES[path])
    assert answer.status == 200
    assert answer.ended
    assert await books.spent() == cost
    assert answer.headers["x-ducto-cost"] == str(cost)
    assert answer.headers["x-ducto-balance"] == str(100_000 - cost)
    assert int(answer.headers["x-ducto-held"]) >= cost
    (row,) = await books.transactions()
    assert row.reservation_id == answer.headers["x-ducto-reservation"]
    assert not row.estimated
    assert row.operation_type == DEFAULT_ROUTES[path].name
    assert row.model == "m"


@ROUTES
async def test_a_stream_is_charged_by_its_usage(path: str, books: Books, caller: Caller) -> None:
    answer = await caller.post(path, {**BODIES[path], "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "x-ducto-reservation" in answer.headers
    assert "x-ducto-cost" not in answer.headers
    assert len(answer.chunks) > 8
    assert await books.spent() == cost_of(BODIES[path])


async def test_embeddings_are_charged_by_their_input(books: Books, caller: Caller) -> None:
    body = {"model": "emb", "input": "some text"}
    await caller.post("/v1/embeddings", body)
    assert await books.spent() == cost_of(body, 0)


async def test_the_hold_covers_the_worst_case(books: Books, caller: Caller) -> None:
    body = {**BODIES[CHAT], "n": 3}
    answer = await caller.post(CHAT, body)
    assert int(answer.headers["x-ducto-held"]) == len(json.dumps(body)) + 2 * 50 * 3


async def test_without_a_limit_the_models_own_output_is_held(books: Books, caller: Caller) -> None:
    body = {"model": "m", "messages": []}
    answer = await caller.post(CHAT, body)
    assert int(answer.headers["x-ducto-held"]) == len(json.dumps(body)) + 2 * 1_000


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
@ROUTES
async def test_an_error_of_the_provider_costs_nothing(
    path: str, status: int, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, status=status, error_body={"error": "no"}, retry_after_seconds=7)
    answer = await caller.post(path, BODIES[path])
    assert answer.status == status
    assert answer.json == {"error": "no"}
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-ducto-cost"] == "0"
    assert await books.spent() == 0


@pytest.mark.parametrize("stream", [False, True])
@ROUTES
async def test_an_explicit_zero_is_charged_as_nothing(
    path: str, stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, usage="zero")
    await caller.post(path, {**BODIES[path], "stream": stream})
    assert await books.spent() == 0
    (row,) = await books.transactions()
    assert not row.estimated


@pytest.mark.parametrize("stream", [False, True])
@ROUTES
async def test_missing_usage_is_estimated_from_what_was_delivered(
    path: str, stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, usage="missing", text="x" * 40)
    body = {**BODIES[path], "stream": stream}
    await caller.post(path, body)
    (row,) = await books.transactions()
    assert row.estimated
    # The text is told once or twice, by format; four bytes are taken for a token.
    assert -(-len(json.dumps(body)) // 4) + 2 * 10 <= await books.spent() <= -(-len(json.dumps(body)) // 4) + 2 * 20


@pytest.mark.parametrize("stream", [False, True])
async def test_missing_usage_may_be_charged_as_all_that_was_reserved(
    stream: bool, books: Books, simulator: ProviderSimulator
) -> None:
    scripted(simulator, usage="missing")
    answer = await Caller(books.door(simulator.app, missing_usage="reserved")).post(
        CHAT, {**BODIES[CHAT], "stream": stream}
    )
    assert await books.spent() == int(answer.headers["x-ducto-held"])
    assert (await books.transactions())[0].estimated


@pytest.mark.parametrize("value", [-5, 1e308, "12", 2**63, {"a": 1}, True, 1.5])
@pytest.mark.parametrize("stream", [False, True])
async def test_wrong_usage_never_lowers_a_bill(
    value: Any, stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, usage_fields={"completion_tokens": value, "total_tokens": 0})
    await caller.post(CHAT, {**BODIES[CHAT], "stream": stream})
    (row,) = await books.transactions()
    assert row.estimated
    assert await books.spent() > 8


@pytest.mark.parametrize("stream", [False, True])
async def test_garbage_passes_through_and_is_not_free(
    stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, garbage=True)
    answer = await caller.post(CHAT, {**BODIES[CHAT], "stream": stream})
    assert b"\xff\xfe" in answer.body
    (row,) = await books.transactions()
    assert row.estimated
    assert await books.spent() > 0


async def test_an_answer_beyond_the_limit_is_passed_on_and_estimated(
    books: Books, simulator: ProviderSimulator
) -> None:
    scripted(simulator, text="y" * 500)
    answer = await Caller(books.door(simulator.app, max_answer_bytes=300)).post(CHAT, BODIES[CHAT])
    assert answer.json["choices"][0]["message"]["content"] == "y" * 500
    assert answer.ended
    assert "x-ducto-cost" not in answer.headers
    (row,) = await books.transactions()
    assert row.estimated


@ROUTES
async def test_an_error_within_a_stream_is_charged_by_what_came_before(
    path: str, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, error_after_events=7, text="z" * 80)
    answer = await caller.post(path, {**BODIES[path], "stream": True})
    assert answer.ended
    (row,) = await books.transactions()
    assert row.estimated
    assert 0 < await books.spent() < 200


async def test_an_error_event_before_anything_else_is_free(
    books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    scripted(simulator, error_after_events=0)
    await caller.post(CHAT, {**BODIES[CHAT], "stream": True})
    assert await books.spent() == 0


async def test_an_exception_of_the_app_frees_the_hold_and_goes_on(books: Books) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("oops")

    with pytest.raises(RuntimeError, match="oops"):
        await Caller(books.door(app)).post(CHAT, BODIES[CHAT])
    assert await books.spent() == 0


async def test_an_exception_within_a_stream_is_charged_by_what_was_delivered(books: Books) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await app_sending([])(scope, receive, _ignored)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        chunk = b'data: {"choices":[{"delta":{"content":"0123456789ab"}}]}\n\n'
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        raise RuntimeError("oops")

    body = {**BODIES[CHAT], "stream": True}
    with pytest.raises(RuntimeError, match="oops"):
        await Caller(books.door(app)).post(CHAT, body)
    assert await books.spent() == -(-len(json.dumps(body)) // 4) + 2 * 3


async def _ignored(message: Any) -> None:
    return None


async def test_a_plain_answer_that_breaks_off_is_refused_and_free(books: Books) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"usage": {"promp', "more_body": True})

    answer = await Caller(books.door(app)).post(CHAT, BODIES[CHAT])
    assert answer.status == 502
    assert answer.json["error"]["code"] == "upstream_broke_off"
    assert await books.spent() == 0


async def test_headers_of_ours_that_the_provider_sends_are_dropped(books: Books) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"X-Ducto-Balance", b"999"), (b"x-ducto-replayed", b"true")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        await send({"type": "http.response.body", "body": json.dumps({"usage": usage}).encode()})

    answer = await Caller(books.door(app)).post(CHAT, BODIES[CHAT])
    assert answer.headers["x-ducto-balance"] == str(100_000 - 3)
    assert "X-Ducto-Balance" not in answer.headers
    assert "x-ducto-replayed" not in answer.headers


async def test_the_app_behind_gets_the_body_and_no_way_around_the_metering(books: Books) -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, body=(await receive())["body"])
        await app_sending([], media_type="application/json", status=503)(scope, _disconnected, send)

    raw = json.dumps(BODIES[CHAT]).encode()
    await Caller(books.door(app)).post(
        CHAT,
        raw,
        headers={"Accept-Encoding": "gzip", "X-Other": "kept"},
        extensions={"http.response.pathsend": {}, "http.response.debug": {}},
    )
    assert seen["body"] == raw
    assert dict(seen["headers"]) == {b"x-other": b"kept", b"content-length": str(len(raw)).encode()}
    assert list(seen["extensions"]) == ["http.response.debug"]


async def _disconnected() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def test_a_team_pays_for_its_member(books: Books, simulator: ProviderSimulator) -> None:
    from ducto.middleware import Identity

    team = await books.manager.create_team("crew", 5_000)
    await books.manager.add_team_member(team.team_id, "alice")
    answer = await Caller(books.door(simulator.app), user=Identity("alice", team.team_id)).post(CHAT, BODIES[CHAT])
    assert answer.status == 200
    assert (await books.manager.get_team_balance(team.team_id)).balance == 5_000 - cost_of(BODIES[CHAT])
    assert await books.spent() == 0


async def test_usage_that_cannot_be_stored_costs_the_caller_no_answer(
    books: Books, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ducto.errors import StoreError

    deduct = books.store.deduct_credits

    async def down(*args: Any, **options: Any) -> Any:
        raise StoreError("secret dsn", retryable=False)

    monkeypatch.setattr(books.store, "deduct_credits", down)
    with caplog.at_level(logging.CRITICAL):
        answer = await caller.post(CHAT, BODIES[CHAT])
    assert answer.status == 200
    assert answer.json["choices"]
    assert "x-ducto-cost" not in answer.headers
    monkeypatch.setattr(books.store, "deduct_credits", deduct)
    await books.store.deduct_credits("alice", answer.headers["x-ducto-reservation"], 1)


def test_the_pricing_of_these_tests_prices_all_bodies() -> None:
    assert {body["model"] for body in BODIES.values()} <= PRICING["models"].keys()
