"""The gateway as a proxy: what it passes on, what it keeps back, and what it does when a provider is away."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from ducto.errors import ConfigError
from ducto.gateway import GatewayKeys, Upstream, build_gateway
from ducto.testing.serving import serve
from tests.end_to_end.conftest import PROVIDER_KEY, Site, open_site
from tests.middleware.support import BODIES, CHAT, START, Caller, cost_of, open_books, scripted

STREAM = {**BODIES[CHAT], "stream": True}


async def test_the_providers_key_is_put_in_the_place_of_the_clients(site: Site) -> None:
    sent = site.headers(
        cookie="session=canary-client",
        **{"idempotency-key": "canary-client", "x-forwarded-for": "1.2.3.4", "openai-organization": "canary-client"},
        **{"connection": "x-hop", "x-hop": "canary-client", "openai-beta": "kept", "x-ducto-cost": "canary-client"},
    )
    answer = await site.http.post(CHAT + "?api-version=1", json=BODIES[CHAT], headers=sent)
    assert answer.status_code == 200
    seen = site.simulator.requests[-1].headers
    assert seen["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert seen["openai-beta"] == "kept"
    assert seen["accept-encoding"] == "identity"
    assert "canary-client" not in str(seen)
    assert "key-of-alice" not in str(seen)
    assert "1.2.3.4" not in str(seen)
    assert PROVIDER_KEY not in str(answer.headers) + answer.text


async def test_anthropic_gets_its_key_in_its_own_header(site: Site) -> None:
    sent = {"x-api-key": "key-of-alice", "anthropic-version": "2023-06-01"}
    await site.http.post("/v1/messages", json=BODIES["/v1/messages"], headers=sent)
    seen = site.simulator.requests[-1].headers
    assert seen["x-api-key"] == PROVIDER_KEY
    assert seen["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nobody"},
        {"authorization": "Basic key-of-alice"},
        {"authorization": "Bearer key-of-alice", "x-api-key": "key-of-bob"},
        {"authorization": "Bearer"},
    ],
)
async def test_without_one_known_key_nothing_is_passed_on(site: Site, headers: dict[str, str]) -> None:
    for path, body in BODIES.items():
        assert (await site.http.post(path, json=body, headers=headers)).status_code == 401
    assert (await site.http.get("/v1/models", headers=headers)).status_code == 401
    assert (await site.http.get("/v1/credits", headers=headers)).status_code == 401
    assert site.simulator.requests == []


def test_keys_may_be_given_as_digests() -> None:
    import hashlib

    digest = hashlib.sha256(b"the key").hexdigest()
    keys = GatewayKeys({f"sha256:{digest}": "alice"})
    identity = keys({"headers": [(b"x-api-key", b"the key")]})
    assert identity is not None
    assert identity.user_id == "alice"
    assert keys({"headers": [(b"x-api-key", f"sha256:{digest}".encode())]}) is None
    for wrong in ("", "sha256:12", "sha256:" + "z" * 64):
        with pytest.raises(ConfigError):
            GatewayKeys({wrong: "alice"})


async def test_own_pages(site: Site) -> None:
    assert (await site.http.get("/healthz")).json() == {"status": "ok"}
    credits_left = (await site.http.get("/v1/credits", headers=site.headers())).json()
    assert credits_left["user_id"] == "alice"
    assert credits_left["available"] == START
    # The simulated provider has no such page, so its 404 is what comes back.
    assert (await site.http.get("/v1/models", headers=site.headers())).status_code == 404
    assert (await site.http.post("/v1/videos", json={}, headers=site.headers())).status_code == 404


async def test_a_provider_that_is_away_is_502_in_the_dialect(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = Upstream(f"http://127.0.0.1:{port}", api_key=PROVIDER_KEY)
    with caplog.at_level(logging.DEBUG):
        async with open_site(openai=away, anthropic=away) as site:
            answer = await site.http.post(CHAT, json=STREAM, headers=site.headers())
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_unreachable"
            answer = await site.http.post("/v1/messages", json=BODIES["/v1/messages"], headers=site.headers())
            assert answer.status_code == 502
            assert answer.json()["type"] == "error"
            assert await site.books.spent() == 0
    assert PROVIDER_KEY not in caplog.text
    assert "key-of-alice" not in caplog.text


async def test_a_provider_that_does_not_answer_is_504() -> None:
    async with open_site(first_byte_seconds=0.1, idle_seconds=0.1) as site:
        scripted(site.simulator, delay_seconds=30)
        answer = await site.http.post(CHAT, json=BODIES[CHAT], headers=site.headers())
        assert answer.status_code == 504
        assert await site.books.spent() == 0
        await asyncio.wait_for(site.simulator.requests[-1].ended.wait(), 2)
        assert site.simulator.requests[-1].outcome == "aborted"


@pytest.mark.parametrize("cut", [0, 1, 150, 700, 1500])
async def test_a_stream_that_the_provider_cuts_is_charged_by_what_came(cut: int) -> None:
    async with open_site() as site:
        scripted(site.simulator, cut_after_bytes=cut, text="q" * 160)
        received = await raw_request(site, CHAT, STREAM)
        head, _, _ = received.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0]
        assert not received.endswith(b"0\r\n\r\n")
        if cut == 0:
            assert await site.books.spent() == 0
        else:
            assert await site.books.spent() >= -(-len(json.dumps(STREAM)) // 4)
            assert (await site.books.transactions())[0].estimated


async def raw_request(site: Site, path: str, body: dict[str, Any], *, leave_after_bytes: int | None = None) -> bytes:
    """Send a request over a plain socket, read to the end, or leave after so many bytes."""
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-alice\r\nConnection: close\r\n"
    writer.write(head.encode() + f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    await writer.drain()
    received = b""
    try:
        while leave_after_bytes is None or len(received) < leave_after_bytes:
            chunk = await reader.read(65_536)
            if not chunk:
                break
            received += chunk
    finally:
        writer.close()
        await writer.wait_closed()
    return received


@pytest.mark.parametrize("drain_seconds", [0, 5])
async def test_a_client_that_drops_its_connection_within_a_stream(drain_seconds: float) -> None:
    async with open_site(drain_seconds=drain_seconds) as site:
        scripted(site.simulator, chunk_delay_seconds=0.03)
        await raw_request(site, CHAT, STREAM, leave_after_bytes=700)
        request = site.simulator.requests[-1]
        await asyncio.wait_for(request.ended.wait(), 3)
        await until_settled(site)
        (row,) = await site.books.transactions()
        assert request.outcome == ("completed" if drain_seconds else "aborted")
        assert row.estimated == (not drain_seconds)
        if drain_seconds:
            assert row.charged == cost_of(STREAM)


async def test_a_client_that_leaves_before_the_provider_answered_pays_nothing(site: Site) -> None:
    scripted(site.simulator, delay_seconds=20)
    task = asyncio.ensure_future(raw_request(site, CHAT, STREAM))
    for _ in range(300):
        await asyncio.sleep(0.01)
        if site.simulator.requests:
            break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(site.simulator.requests[-1].ended.wait(), 3)
    await until_settled(site)
    assert site.simulator.requests[-1].outcome == "aborted"
    assert await site.books.spent() == 0


async def until_settled(site: Site) -> None:
    for _ in range(300):
        if (await site.books.store.get_available("alice")).held == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the hold did not end")


async def test_slow_senders_hold_nothing_and_nobody_up(site: Site) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    writers = []
    for _ in range(100):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-alice\r\n")
        writer.write(b"Content-Length: 5000\r\n\r\n{")
        writers.append(writer)
    answer = await asyncio.wait_for(site.http.post(CHAT, json=BODIES[CHAT], headers=site.headers()), 2)
    assert answer.status_code == 200
    assert (await site.books.store.get_available("alice")).held == 0
    for writer in writers:
        writer.close()


async def test_a_gateway_needs_upstreams_and_callers() -> None:
    async with open_books() as books:
        upstream = Upstream("http://127.0.0.1:1")
        with pytest.raises(ConfigError):
            build_gateway(books.manager, keys={})
        with pytest.raises(ConfigError):
            build_gateway(books.manager, openai=upstream)
        with pytest.raises(ConfigError):
            build_gateway(books.manager, openai=upstream, keys={}, identify=lambda scope: None)
        with pytest.raises(ConfigError):
            Upstream("ftp://x")
        assert "secret" not in repr(Upstream("http://x", api_key="secret", headers={"a": "secret"}))
        one_sided = build_gateway(books.manager, openai=upstream, keys={"k": "alice"})
        answer = await Caller(one_sided).post("/v1/messages", BODIES["/v1/messages"])
        assert answer.status == 404


async def test_other_spellings_of_a_path_are_never_free(site: Site) -> None:
    for path in ("/v1/chat/completions/", "/v1//chat/completions", "/V1/CHAT/completions", "/v1/chat%2fcompletions"):
        answer = await site.http.post(path, json=BODIES[CHAT], headers=site.headers())
        assert answer.status_code in (200, 404)
    served = len(site.simulator.requests)
    assert await site.books.spent() == served * cost_of(BODIES[CHAT])


async def test_models_are_passed_on_and_nothing_else_through_them() -> None:
    asked: list[str] = []

    async def provider(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["raw_path"].decode())
            await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"a=b")]})
            await send({"type": "http.response.body", "body": b"models"})

    async with serve(provider) as url, open_site(openai=Upstream(url), anthropic=None) as site:
        for path in ("/v1/models", "/v1/models/vendor/m%3Fx", "/v1/models/..%2Ffiles", "/v1/models/x/..%5C..%5Cfiles"):
            answer = await site.http.get(path, headers=site.headers())
            assert "set-cookie" not in answer.headers
    assert asked == ["/v1/models", "/v1/models/vendor/m%3Fx"]
