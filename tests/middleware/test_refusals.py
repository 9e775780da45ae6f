"""Refusals: before the first byte, in the caller's own dialect, with the right status, and without internals."""

from __future__ import annotations

import json
import logging
import tracemalloc
from typing import Any

import pytest

from ducto.errors import StoreError
from ducto.models import SpendCap
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import BODIES, CHAT, START, Books, Caller

MESSAGES_PATH = "/v1/messages"
DIALECTS = pytest.mark.parametrize("path", [CHAT, MESSAGES_PATH])


def error_of(path: str, answer: Any) -> dict[str, Any]:
    body = answer.json
    if path == MESSAGES_PATH:
        assert body["type"] == "error"
    else:
        assert set(body) == {"error"}
        assert {"message", "type", "param", "code"} <= body["error"].keys()
    return dict(body["error"])


@DIALECTS
@pytest.mark.parametrize("stream", [False, True])
async def test_who_cannot_pay_gets_402_and_the_numbers(
    path: str, stream: bool, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    await books.manager.adjust_credits("alice", START - 10, direction="debit", idempotency_key="poor")
    answer = await caller.post(path, {**BODIES[path], "stream": stream})
    assert answer.status == 402
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["content-type"] == "application/json"
    error = error_of(path, answer)
    assert error["code"] == "insufficient_credits"
    assert error["type"] == ("billing_error" if path == MESSAGES_PATH else "insufficient_quota")
    assert error["available"] == 10
    assert error["required"] > 10
    assert simulator.requests == []


@DIALECTS
async def test_a_cap_says_when_it_resets(path: str, books: Books, caller: Caller) -> None:
    await books.manager.set_spend_cap(SpendCap(user_id="alice", cap_type="daily", limit=5, action="deny"))
    answer = await caller.post(path, BODIES[path])
    assert answer.status == 402
    error = error_of(path, answer)
    assert error["code"] == "cap_reached"
    assert error["resets_at"].startswith("20")


@DIALECTS
async def test_an_unknown_model_is_refused_without_naming_others(path: str, books: Books, caller: Caller) -> None:
    answer = await caller.post(path, {**BODIES[path], "model": "emc"})
    assert answer.status == 400
    assert answer.headers["x-should-retry"] == "false"
    error = error_of(path, answer)
    assert error["code"] == "price_unknown"
    assert "emb" not in error["message"]


@DIALECTS
async def test_nobody_is_refused_with_401(path: str, books: Books, simulator: ProviderSimulator) -> None:
    answer = await Caller(books.door(simulator.app), user=None).post(path, BODIES[path])
    assert answer.status == 401
    assert error_of(path, answer)["type"] == "authentication_error"
    assert simulator.requests == []


@DIALECTS
async def test_a_store_that_is_down_is_503_and_says_nothing_more(
    path: str, books: Books, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(*args: Any, **options: Any) -> Any:
        raise StoreError("postgres://user:secret@host", retryable=False, retry_after_seconds=3)

    monkeypatch.setattr(books.store, "reserve_credits", down)
    with caplog.at_level(logging.CRITICAL):
        answer = await caller.post(path, BODIES[path])
    assert answer.status == 503
    assert answer.headers["retry-after"] == "3"
    assert "x-should-retry" not in answer.headers
    assert b"secret" not in answer.body


@DIALECTS
async def test_a_missing_feature_is_403(path: str, books: Books, simulator: ProviderSimulator) -> None:
    answer = await Caller(books.door(simulator.app, feature="gpu")).post(path, BODIES[path])
    assert answer.status == 403
    assert error_of(path, answer)["type"] == "permission_error"


async def test_too_many_calls_at_once_are_429_with_retry_after(books: Books, simulator: ProviderSimulator) -> None:
    from tests.middleware.support import PRICING

    plan = {"id": "one", "name": "One", "max_concurrent": 1}
    await books.manager.publish_pricing({**PRICING, "plans": {"one": plan}})
    await books.manager.set_user_plan("alice", "one")
    async with books.manager.meter("alice", estimate=1) as running:
        answer = await Caller(books.door(simulator.app)).post(CHAT, BODIES[CHAT])
        await running.release()
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


@DIALECTS
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": "m", "model": "cheap"}',
        b'{"model": "m", "max_tokens": NaN}',
        b'{"model": "m", "max_tokens": -1}',
        b'{"model": "m", "max_tokens": "9"}',
        b'{"model": "m", "max_tokens": ' + b"9" * 10_000 + b"}",
        b'{"model": 5}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 200_000,
    ],
)
async def test_a_body_that_cannot_be_metered_is_400(
    path: str, body: bytes, books: Books, caller: Caller, simulator: ProviderSimulator
) -> None:
    answer = await caller.post(path, body)
    assert answer.status == 400
    assert error_of(path, answer)["type"] == "invalid_request_error"
    assert simulator.requests == []


async def test_an_encoded_body_is_415(books: Books, caller: Caller) -> None:
    answer = await caller.post(CHAT, BODIES[CHAT], headers={"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert (await caller.post(CHAT, BODIES[CHAT], headers={"content-encoding": "identity"})).status == 200


@pytest.mark.parametrize("length", ["10000001", "9" * 5000, "1" * 18])
async def test_a_declared_length_beyond_the_limit_is_413_unread(length: str, books: Books, simulator: Any) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", length.encode())]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "user": "alice"}
    await books.door(simulator.app)(scope, receive, send)
    assert sent[0]["status"] == 413
    assert (b"x-should-retry", b"false") in sent[0]["headers"]


async def test_a_huge_body_in_chunks_is_413_and_takes_little_memory(books: Books, simulator: Any) -> None:
    chunk = bytes(100_000)
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += len(chunk)
        return {"type": "http.request", "body": bytes(chunk), "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    door = books.door(simulator.app, max_body_bytes=2_000_000)
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "user": "alice"}
    tracemalloc.start()
    try:
        await door(scope, receive, send)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent[0]["status"] == 413
    assert read <= 2_100_000
    assert peak_bytes < 4_000_000


async def test_the_body_of_exactly_the_limit_passes(books: Books, simulator: ProviderSimulator) -> None:
    raw = json.dumps(BODIES[CHAT]).encode()
    assert (await Caller(books.door(simulator.app, max_body_bytes=len(raw))).post(CHAT, raw)).status == 200
    assert (await Caller(books.door(simulator.app, max_body_bytes=len(raw) - 1)).post(CHAT, raw)).status == 413
