"""The transport under bare clients of httpx and httpx2: what passes, what is read, and how every call ends."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from typing import Any

import pytest

from ducto import acting_as
from ducto.errors import ConfigError, StoreError
from ducto.manager import CreditManager
from ducto.middleware import DEFAULT_ROUTES, ClampToAfford
from ducto.middleware.providers import OpenAIChat
from ducto.middleware.transport import TransportOptions, metered_transport
from ducto.models import DeductionResult
from ducto.stores.memory import MemoryStore
from ducto.testing.simulator import ProviderSimulator, input_tokens_of
from tests.middleware.support import BODIES, PRICING, START, Books, cost_of, open_books, scripted
from tests.middleware.support import CHAT as PATH
from tests.transport.support import CHAT, LIBRARIES, Tally, client_of

EACH_LIBRARY = pytest.mark.parametrize("library", LIBRARIES)
STREAM = {**CHAT, "stream": True}
ASKING = {**STREAM, "stream_options": {"include_usage": True}}
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 8}}\n\n'
SHOWN = [b'data: {"choices": [{"index": 0, "delta": {"content": "Hi \xe2\x82\xac"}}]}\n\n', b": comment\n\n"]
EVENTS = [*SHOWN, USAGE, b"data: [DONE]\n\n"]
ERROR = b'data: {"error": {"message": "overloaded"}}\n\n'
#: For `ASKING`, and the six bytes of text in `SHOWN`.
ESTIMATE = -(-len(json.dumps(ASKING, separators=(",", ":"))) // 4) + 2 * 2


def provider_sending(
    library: str, chunks: Sequence[bytes], *, media_type: str = "text/event-stream", mode: str = "async"
) -> Any:
    """An inner transport whose answer comes in exactly these chunks; `.requests` are what it got."""
    module = import_module(library)
    base = module.AsyncBaseTransport if mode == "async" else module.BaseTransport
    stream_base = module.AsyncByteStream if mode == "async" else module.SyncByteStream

    class Body(stream_base):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Any:
            return iter(chunks)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

    class Provider(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.requests: list[Any] = []

        def handle_request(self, request: Any) -> Any:
            self.requests.append(request)
            return module.Response(200, headers={"content-type": media_type, "x-ducto-cost": "0"}, stream=Body())

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    return Provider()


# What passes


@EACH_LIBRARY
@pytest.mark.parametrize("seed", range(5))
async def test_chunks_pass_as_they_come(library: str, seed: int, books: Books) -> None:
    chance = random.Random(seed)
    data = b"".join(EVENTS)
    cuts = sorted(chance.sample(range(1, len(data)), 12))
    chunks = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    inner = provider_sending(library, chunks)
    async with client_of(library, books, inner=inner) as client:
        sent = client.build_request("POST", "http://provider" + PATH, json=ASKING)
        response = await client.send(sent, stream=True)
        assert [part async for part in response.aiter_raw()] == chunks
        assert "x-ducto-cost" not in response.headers
        assert response.headers["x-ducto-reservation"]
        await response.aclose()
        # The usage that only we asked for does not show, and what shows is whole.
        response = await client.post("http://provider" + PATH, json=STREAM)
        assert response.content == b"".join([*SHOWN, EVENTS[-1]])
    assert inner.requests[0].content == sent.content
    assert [row.charged for row in await books.transactions()] == 2 * [9 + 2 * 8]


@EACH_LIBRARY
async def test_other_requests_pass_untouched(library: str, books: Books) -> None:
    inner = provider_sending(library, [b"{}"], media_type="application/json")

    async def upload() -> AsyncIterator[bytes]:
        yield b"part"

    async with client_of(library, books, inner=inner) as client:
        for method, path, content in [
            ("GET", "/v1/models", None),
            ("POST", "/v1/files", upload()),
            ("POST", "/v1/messages/count_tokens", b"{}"),
            ("DELETE", "/v1/responses/r", None),
        ]:
            request = client.build_request(method, "http://provider" + path, content=content)
            response = await client.send(request)
            assert inner.requests[-1] is request
            assert "x-ducto-reservation" not in response.headers
    assert await books.transactions() == []


async def test_what_looks_like_a_model_is_refused_or_logged(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    inner = provider_sending(LIBRARIES[0], [b"{}"], media_type="application/json")
    async with client_of(LIBRARIES[0], books, inner=inner) as client:
        response = await client.post("http://provider/v1/rerank", json={})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unmetered_route")
        assert response.headers["x-should-retry"] == "false"
        assert inner.requests == []
    async with client_of(LIBRARIES[0], books, inner=inner, options=TransportOptions(unmetered="log")) as client:
        assert (await client.post("http://provider/v1/rerank", json={})).status_code == 200
    assert caplog.text.count("looks like one to a model") == 2


async def test_a_model_route_counts_behind_a_prefix_too(books: Books, provider: str) -> None:
    routes = {**DEFAULT_ROUTES, "/chat/completions": OpenAIChat()}
    inner = provider_sending(LIBRARIES[0], EVENTS)
    options = TransportOptions(routes=routes)
    async with client_of(LIBRARIES[0], books, inner=inner, options=options) as client:
        for path in ("/api/v1/chat/completions", "/openai/deployments/mine/chat/completions", "/v1//Chat/completions"):
            await client.post("http://provider" + path, json=STREAM)
    assert await books.spent() == 3 * (9 + 2 * 8)


# Who pays


async def test_who_pays_is_told_from_the_request(books: Books, provider: str) -> None:
    team = await books.manager.create_team("crew", START)
    assert team.team_id is not None
    await books.manager.add_team_member(team.team_id, "bob")

    def user_of(request: Any) -> str | None:
        name = request.headers.get("x-for")
        return str(name) if name else None

    def team_of(request: Any) -> str | None:
        return team.team_id if request.headers.get("x-for") == "bob" else None

    async with client_of(LIBRARIES[-1], books, user_id=user_of, team_id=team_of) as client:
        for name in ("alice", "bob"):
            await client.post(provider + PATH, json=CHAT, headers={"x-for": name})
        nobody = await client.post(provider + PATH, json=CHAT)
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "unauthenticated")
    assert await books.spent("alice") == cost_of(CHAT)
    assert await books.spent("bob") == 0
    assert (await books.manager.get_team_balance(team.team_id)).balance == START - cost_of(CHAT)


async def test_by_default_who_acts_pays(books: Books, provider: str) -> None:
    async with client_of(LIBRARIES[0], books, user_id=None) as client:
        with acting_as("bob"):
            await client.post(provider + PATH, json=CHAT)
        assert (await client.post(provider + PATH, json=CHAT)).status_code == 401

        def ask() -> None:
            with acting_as("alice"), client_of(LIBRARIES[0], books, user_id=None, mode="sync") as blocking:
                blocking.post(provider + PATH, json=CHAT)

        await asyncio.to_thread(ask)
    assert (await books.spent("alice"), await books.spent("bob")) == (cost_of(CHAT), cost_of(CHAT))


# Requests


@EACH_LIBRARY
@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_a_body_from_an_iterator_is_read_once(
    library: str, mode: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    data = json.dumps(STREAM, ensure_ascii=False).encode()
    taken = 0

    def parts() -> Any:
        nonlocal taken
        for start in range(0, len(data), 10):
            taken += 1
            yield data[start : start + 10]

    async def async_parts() -> AsyncIterator[bytes]:
        for part in parts():
            yield part

    options = TransportOptions(include_usage=False)
    client = client_of(library, books, mode=mode, options=options)
    if mode == "async":
        response = await client.post(provider + PATH, content=async_parts())
        await client.aclose()
    else:
        response = await asyncio.to_thread(client.post, provider + PATH, content=parts())
        client.close()
    assert response.status_code == 200
    assert taken == -(-len(data) // 10)
    assert simulator.requests[0].raw_body == data
    assert simulator.requests[0].headers["content-length"] == str(len(data))
    assert "transfer-encoding" not in simulator.requests[0].headers


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_a_body_is_read_no_further_than_its_limit(
    mode: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    taken = 0

    def parts() -> Any:
        nonlocal taken
        for _ in range(1_000):
            taken += 1
            yield b" " * 100

    async def async_parts() -> AsyncIterator[bytes]:
        for part in parts():
            yield part

    client = client_of(LIBRARIES[0], books, mode=mode, options=TransportOptions(max_body_bytes=1_000))
    url = provider + PATH
    if mode == "async":
        answers = [await client.post(url, content=async_parts()), await client.post(url, content=b" " * 1_001)]
        await client.aclose()
    else:
        answers = [await asyncio.to_thread(client.post, url, content=one) for one in (parts(), b" " * 1_001)]
        client.close()
    assert [answer.status_code for answer in answers] == [413, 413]
    assert all(answer.headers["x-should-retry"] == "false" for answer in answers)
    assert taken == 11
    assert simulator.requests == []


async def test_an_encoded_body_and_one_that_is_no_request_are_refused(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    async with client_of(LIBRARIES[0], books) as client:
        encoded = await client.post(provider + PATH, content=b"{}", headers={"content-encoding": "gzip"})
        assert (encoded.status_code, encoded.json()["error"]["code"]) == (415, "unsupported_encoding")
        broken = await client.post(provider + "/v1/messages", content=b"{")
        assert (broken.status_code, broken.json()["type"]) == (400, "error")
    assert simulator.requests == []


async def test_a_lone_surrogate_is_passed_on_as_it_was_written(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    body = json.dumps({**STREAM, "user": "lone \ud800, two bytes: é"}).encode()
    async with client_of(LIBRARIES[0], books) as client:
        assert (await client.post(provider + PATH, content=body)).status_code == 200
    assert simulator.requests[0].body["user"] == "lone \ud800, two bytes: é"


async def test_an_output_limit_is_lowered_to_what_can_be_paid(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    await books.manager.adjust_credits("alice", START - 1_000, direction="debit", idempotency_key="poor")
    body = {**CHAT, "max_tokens": 1_000}
    async with client_of(LIBRARIES[0], books, options=TransportOptions(clamp=ClampToAfford())) as client:
        response = await client.post(provider + PATH, json=body)
    lowered = int(response.headers["x-ducto-clamped"])
    assert simulator.requests[0].body["max_tokens"] == lowered < 500


@EACH_LIBRARY
async def test_each_step_of_a_redirect_is_an_attempt(library: str, books: Books, provider: str) -> None:
    module = import_module(library)

    class Moved(module.AsyncHTTPTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            if request.url.host == "old":
                return module.Response(307, headers={"location": provider + PATH})
            return await super().handle_async_request(request)

    tally = Tally(books)
    async with client_of(library, books, inner=Moved()) as client:
        response = await client.post("http://old" + PATH, json=CHAT, follow_redirects=True)
    assert response.status_code == 200
    assert await tally.counts(books) == (2, 1, 1)


# How calls end


@EACH_LIBRARY
@pytest.mark.parametrize("path", BODIES)
async def test_a_provider_that_breaks_off(
    library: str, path: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    module = import_module(library)
    async with client_of(library, books) as client:
        scripted(simulator, cut_after_bytes=30)
        with pytest.raises(module.RemoteProtocolError):
            await client.post(provider + path, json=BODIES[path])
        assert await books.spent() == 0
        scripted(simulator, cut_after_bytes=300)
        with pytest.raises(module.RemoteProtocolError):
            await client.post(provider + path, json={**BODIES[path], "stream": True})
        assert (await books.transactions())[0].estimated
        spent = await books.spent()
        scripted(simulator, cut_after_bytes=0)
        with pytest.raises(module.RemoteProtocolError):
            await client.post(provider + path, json={**BODIES[path], "stream": True})
        assert await books.spent() == spent


@EACH_LIBRARY
@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_a_provider_that_is_silent_or_away(
    library: str, mode: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    module = import_module(library)
    client = client_of(library, books, mode=mode, options=TransportOptions(include_usage=False))

    async def post(url: str, body: Any) -> Any:
        if mode == "async":
            return await client.post(url + PATH, json=body, timeout=0.2)
        return await asyncio.to_thread(client.post, url + PATH, json=body, timeout=0.2)

    with pytest.raises(module.ConnectError):
        await post("http://127.0.0.1:1", CHAT)
    scripted(simulator, delay_seconds=5)
    with pytest.raises(module.ReadTimeout):
        await post(provider, CHAT)
    assert await books.spent() == 0
    scripted(simulator, hang_after_events=0)
    with pytest.raises(module.ReadTimeout):
        await post(provider, STREAM)
    # It had begun to work, and we gave up on it.
    assert await books.spent() == -(-len(simulator.requests[-1].raw_body) // 4)
    assert (await books.transactions())[0].estimated
    await (client.aclose() if mode == "async" else asyncio.to_thread(client.close))


async def test_an_answer_without_usage_and_one_that_is_too_large_are_estimated(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    async with client_of(LIBRARIES[0], books, options=TransportOptions(max_answer_bytes=100)) as client:
        large = await client.post(provider + PATH, json=CHAT)
        assert len(large.content) > 100
        assert large.json()["usage"]["completion_tokens"] == 8
    async with client_of(LIBRARIES[0], books, options=TransportOptions(missing_usage="reserved")) as client:
        scripted(simulator, usage="missing")
        reserved = await client.post(provider + PATH, json=CHAT)
    rows = await books.transactions()
    assert [row.estimated for row in rows] == [True, True]
    assert str(rows[0].charged) == reserved.headers["x-ducto-held"]


@EACH_LIBRARY
async def test_a_request_cancelled_at_a_random_moment_leaves_no_hold(
    library: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    chance = random.Random(11)
    body = {**STREAM, "messages": [{"role": "user", "content": "?"}]}
    async with client_of(library, books) as client:
        for _ in range(80):
            scripted(simulator, chunk_delay_seconds=0.0005)
            task = asyncio.ensure_future(client.post(provider + PATH, json=body))
            await asyncio.sleep(chance.random() * 0.03)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert (await books.store.get_available("alice")).held == 0
    rows = await books.transactions()
    assert rows
    assert all(row.estimated or row.charged == cost_of(body) for row in rows)


class SlowStore(MemoryStore):
    """Charges and releases slowly, and cannot be reached while `away`."""

    away = False

    async def deduct_credits(self, *args: Any, **options: Any) -> DeductionResult:
        await asyncio.sleep(0.2)
        return await super().deduct_credits(*args, **options)

    async def release_reservation(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0.2)
        return await super().release_reservation(*args, **options)

    async def reserve_credits(self, *args: Any, **options: Any) -> Any:
        if self.away:
            raise StoreError("no route to the store", retryable=False)
        return await super().reserve_credits(*args, **options)


async def slow_books() -> tuple[SlowStore, CreditManager]:
    store = SlowStore()
    manager = CreditManager(store, maintain_every_seconds=None)
    await manager.publish_pricing(PRICING)
    await manager.add_credits("alice", START, "purchase", idempotency_key="start")
    return store, manager


async def test_a_settlement_is_not_cancelled_with_its_request(provider: str) -> None:
    store, manager = await slow_books()
    books = Books(store, manager)
    async with manager, client_of(LIBRARIES[0], books) as client:
        # Once while the end of the answer waits for the charge, once while closing waits for it.
        waiting = asyncio.ensure_future(client.post(provider + PATH, json=CHAT))
        await asyncio.sleep(0.12)
        waiting.cancel()
        response = await client.send(client.build_request("POST", provider + PATH, json=STREAM), stream=True)
        await anext(response.aiter_raw())
        closing = asyncio.ensure_future(response.aclose())
        await asyncio.sleep(0.05)
        closing.cancel()
        ended = await asyncio.gather(waiting, closing, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        assert len(await books.transactions()) < 2
    assert len(await books.transactions()) == 2
    assert (await store.get_available("alice")).held == 0
    assert (await store.verify()).ok


async def test_a_release_is_not_cancelled_with_its_request_and_the_connection_is_given_back(
    provider: str, simulator: ProviderSimulator
) -> None:
    store, manager = await slow_books()
    module = import_module(LIBRARIES[0])
    inner = module.AsyncHTTPTransport(limits=module.Limits(max_connections=1))
    async with manager, client_of(LIBRARIES[0], Books(store, manager), inner=inner) as client:
        scripted(simulator, status=500)
        waiting = asyncio.ensure_future(client.post(provider + PATH, json=CHAT))
        await asyncio.wait_for(until(lambda: bool(simulator.requests) and simulator.requests[0].ended.is_set()), 5)
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await store.get_available("alice")).held > 0
        assert (await client.post(provider + PATH, json=CHAT, timeout=1)).status_code == 200
    assert (await store.get_available("alice")).held == 0
    assert (await store.get_balance("alice")).balance == START - cost_of(CHAT)


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if happened():
            return
        await asyncio.sleep(0.005)


async def test_a_store_that_is_away_lets_nothing_through(provider: str, simulator: ProviderSimulator) -> None:
    store, manager = await slow_books()
    async with manager, client_of(LIBRARIES[0], Books(store, manager)) as client:
        store.away = True
        response = await client.post(provider + PATH, json=CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "1"
    assert "x-should-retry" not in response.headers
    assert simulator.requests == []


@EACH_LIBRARY
@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("sent", [EVENTS, [*SHOWN, ERROR]], ids=["done", "error"])
async def test_the_charge_is_made_at_the_event_that_ends_a_stream(
    library: str, mode: str, sent: Sequence[bytes], books: Books
) -> None:
    inner = provider_sending(library, sent, mode=mode)
    client = client_of(library, books, mode=mode, inner=inner)
    request = client.build_request("POST", "http://provider" + PATH, json=ASKING)
    if mode == "async":
        response = await client.send(request, stream=True)
        events = response.aiter_raw()
        for event in sent:
            assert await anext(events) == event
    else:
        response = await asyncio.to_thread(client.send, request, stream=True)
        blocking = response.iter_raw()
        for event in sent:
            assert await asyncio.to_thread(next, blocking) == event
    await asyncio.sleep(0.05)
    # The body has not ended, and is not closed.
    assert [row.charged for row in await books.transactions()] == [9 + 2 * 8 if sent is EVENTS else ESTIMATE]
    await (client.aclose() if mode == "async" else asyncio.to_thread(response.close))


@EACH_LIBRARY
@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_that_is_forgotten_is_charged(library: str, begun: bool, books: Books) -> None:
    client = client_of(library, books, inner=provider_sending(library, EVENTS))

    async def forget() -> None:
        request = client.build_request("POST", "http://provider" + PATH, json=ASKING)
        response = await client.send(request, stream=True)
        if begun:
            async for _ in response.aiter_raw():
                break

    await forget()
    gc.collect()
    await asyncio.sleep(0.05)
    assert [row.estimated for row in await books.transactions()] == [True]
    assert (await books.store.get_available("alice")).held == 0


async def test_closing_again_charges_nothing(books: Books, provider: str) -> None:
    async with client_of(LIBRARIES[0], books) as client:
        response = await client.post(provider + PATH, json=STREAM)
        for _ in range(3):
            await response.aclose()
            await response.stream.aclose()
    assert await books.spent() == cost_of(STREAM)


# Without an event loop, and with the wrong one


@EACH_LIBRARY
def test_a_program_without_any_event_loop(library: str) -> None:
    store = MemoryStore()
    manager = CreditManager(store, maintain_every_seconds=None)

    def run(work: Callable[[], Any]) -> Any:
        return manager.portal.call(work, instead="")

    run(lambda: manager.publish_pricing(PRICING))
    run(lambda: manager.add_credits("alice", START, "grant", idempotency_key="start"))
    books = Books(store, manager)
    inner = provider_sending(library, EVENTS, mode="sync")
    with client_of(library, books, mode="sync", inner=inner) as client:
        assert client.post("http://provider" + PATH, json=STREAM).content == b"".join([*SHOWN, EVENTS[-1]])
        with client.stream("POST", "http://provider" + PATH, json=ASKING) as response:
            assert next(response.iter_raw()) == EVENTS[0]
        rows = run(books.transactions)
        assert [row.estimated for row in rows] == [True, False]
        forgotten = client.send(client.build_request("POST", "http://provider" + PATH, json=ASKING), stream=True)
        del forgotten, response
        gc.collect()
    manager.close()
    with asyncio.Runner() as runner:
        assert runner.run(store.get_available("alice")).held == 0
        assert len(runner.run(books.transactions())) == 3
        assert runner.run(store.verify()).ok


def test_a_program_ends_although_it_forgot_a_stream() -> None:
    program = """
import asyncio
from tests.middleware.support import CHAT, Books, open_books
from tests.transport.support import client_of
from tests.transport.test_transport import ASKING, EVENTS, LIBRARIES, provider_sending

async def main():
    async with open_books() as books:
        inner = provider_sending(LIBRARIES[0], EVENTS, mode="sync")
        client = client_of(LIBRARIES[0], books, mode="sync", inner=inner)
        request = client.build_request("POST", "http://provider" + CHAT, json=ASKING)
        response = await asyncio.to_thread(client.send, request, stream=True)
        global forgotten
        forgotten = response.iter_raw()
        next(forgotten)
        raise SystemExit(7)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 7, ended.stderr


@EACH_LIBRARY
async def test_a_sync_client_on_the_thread_of_a_loop_is_told_what_to_use(library: str, books: Books) -> None:
    inner = provider_sending(library, EVENTS, mode="sync")
    with (
        client_of(library, books, mode="sync", inner=inner) as client,
        pytest.raises(ConfigError, match=r"AsyncOpenAI.*mode='async'"),
    ):
        client.post("http://provider" + PATH, json=CHAT)
    assert inner.requests == []


async def test_what_is_put_together_wrongly_is_told(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    make: Any = metered_transport
    with pytest.raises(ConfigError, match="'httpx' or 'httpx2'"):
        make(books.manager, library="requests")
    with pytest.raises(ConfigError, match="mode"):
        make(books.manager, mode="trio")
    with pytest.raises(ConfigError, match=r"inner must be a httpx\.BaseTransport"):
        make(books.manager, mode="sync", inner=provider_sending("httpx", EVENTS))
    if len(LIBRARIES) > 1:
        other = import_module("httpx2").AsyncClient(transport=make(books.manager, user_id="alice"))
        with pytest.raises(ConfigError, match="is for httpx, but a client of httpx2"):
            await other.post("http://provider" + PATH, json=CHAT)
    for options in ({"max_body_bytes": 0}, {"unmetered": "never"}, {"missing_usage": "guess"}):
        with pytest.raises(ConfigError):
            TransportOptions(**options)  # type: ignore[arg-type]


async def test_a_manager_without_prices_says_so(provider: str) -> None:
    async with CreditManager(MemoryStore(), maintain_every_seconds=None) as manager:
        books = Books(MemoryStore(), manager)
        async with client_of(LIBRARIES[0], books) as client:
            with pytest.raises(ConfigError, match="pricing"):
                await client.post(provider + PATH, json=CHAT)


def test_the_simulated_bill_is_what_is_compared_with() -> None:
    assert cost_of(CHAT) == input_tokens_of(CHAT) + 16


async def test_many_streams_at_once_each_settle_once(provider: str) -> None:
    async with open_books() as books, client_of(LIBRARIES[0], books) as client:
        await asyncio.gather(*(client.post(provider + PATH, json=STREAM) for _ in range(30)))
        assert await books.spent() == 30 * cost_of(STREAM)
        assert len({row.reservation_id for row in await books.transactions()}) == 30
