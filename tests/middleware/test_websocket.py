"""WebSockets to model routes, over a real server with a real client: refused, or metered by a callback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ducto.errors import ConfigError
from ducto.meter import MeteredCall
from ducto.middleware.websocket import MeteredSocket, WebSocketData
from ducto.testing.serving import serve
from ducto.usage import UsageMetrics
from tests.middleware.support import START, Books

REALTIME = "/v1/realtime"
USAGE = {"input_tokens": 10, "output_tokens": 7}
COST = 10 + 2 * 7

Callback = Callable[[MeteredSocket], Awaitable[None]]


class Realtime:
    """A model behind a WebSocket: greets, and answers each message with its usage, or as it was asked to."""

    def __init__(self) -> None:
        self.answered = 0
        self.ended: list[str] = []
        self.failing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps({"type": "session.created"})})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ended.append("disconnect")
                return
            if self.failing:
                raise RuntimeError("the model failed")
            try:
                await send({"type": "websocket.send", "text": json.dumps({"type": "response.done", "usage": USAGE})})
            except OSError:
                self.ended.append("send failed")
                raise
            self.answered += 1


async def one_call(socket: MeteredSocket) -> None:
    """One call for the whole connection: its usage is the sum of what the answers tell."""
    call = await socket.open(estimate=1_000, model="m")
    total = 0

    def add(data: WebSocketData) -> None:
        nonlocal total
        usage = json.loads(data).get("usage")
        if usage:
            total += usage["output_tokens"]
            call.record(UsageMetrics(model="m", output_tokens=total))

    await socket.run(on_send=add)


class PerAnswer:
    """A call for each answer, opened when the client asks for it."""

    def __init__(self, estimate: int = 100) -> None:
        self.estimate = estimate

    async def __call__(self, socket: MeteredSocket) -> None:
        calls: list[MeteredCall] = []

        async def asked(data: WebSocketData) -> None:
            calls.append(await socket.open(estimate=self.estimate, model="m"))

        async def answered(data: WebSocketData) -> None:
            usage = json.loads(data).get("usage")
            if usage:
                await calls[-1].settle(UsageMetrics(model="m", **usage))

        await socket.run(on_receive=asked, on_send=answered)


@asynccontextmanager
async def door(books: Books, app: Any, **options: Any) -> AsyncIterator[Callable[..., connect]]:
    async with serve(books.door(app, **{"identify": lambda scope: "alice", **options}), websockets=True) as url:
        yield lambda path=REALTIME: connect(url.replace("http", "ws") + path, proxy=None)


async def ask(client: ClientConnection) -> Any:
    await client.send("{}")
    return json.loads(await client.recv())


async def settled(books: Books) -> None:
    async with asyncio.timeout(5):
        while (await books.store.get_available("alice")).held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", [REALTIME, "/v1/chat/completions", "/api//V1/realtime", "/v1/responses"])
@pytest.mark.parametrize("unmetered", ["refuse", "log"])
async def test_without_a_callback_it_is_refused_before_it_is_accepted(books: Books, path: str, unmetered: Any) -> None:
    app = Realtime()
    async with door(books, app, unmetered=unmetered) as opened:
        with pytest.raises(InvalidStatus) as refused:
            await opened(path)
    assert refused.value.response.status_code == 403
    body = json.loads(refused.value.response.body or b"")
    assert body["error"]["code"] == "websocket_not_metered"
    assert app.answered == 0


async def test_any_other_passes(books: Books) -> None:
    async with door(books, Realtime()) as opened, opened("/rooms/7") as client:
        await client.recv()
        assert (await ask(client))["type"] == "response.done"
    assert await books.spent() == 0


async def test_a_call_for_the_connection(books: Books) -> None:
    async with door(books, Realtime(), websocket=one_call) as opened:
        async with opened() as client:
            assert json.loads(await client.recv())["type"] == "session.created"
            assert (await books.store.get_available("alice")).held == 1_000
            for _ in range(3):
                await ask(client)
            assert await books.spent() == 0
        await settled(books)
    [row] = await books.transactions()
    assert (row.charged, row.estimated, row.operation_type) == (3 * 2 * 7, False, "websocket")


async def test_a_call_for_each_answer(books: Books) -> None:
    async with door(books, Realtime(), websocket=PerAnswer()) as opened, opened() as client:
        await client.recv()
        for number in range(1, 4):
            await ask(client)
            assert await books.spent() == number * COST
    assert len(await books.transactions()) == 3


async def test_one_who_cannot_pay_is_refused_before_it_is_accepted(books: Books) -> None:
    async def too_dear(socket: MeteredSocket) -> None:
        await socket.open(estimate=START + 1)
        await socket.run()

    async with door(books, Realtime(), websocket=too_dear) as opened:
        with pytest.raises(InvalidStatus) as refused:
            await opened()
    assert refused.value.response.status_code == 402
    assert json.loads(refused.value.response.body or b"")["error"]["required"] == START + 1


async def test_one_who_cannot_pay_any_more_is_closed(books: Books) -> None:
    app = Realtime()
    async with door(books, app, websocket=PerAnswer(estimate=START)) as opened, opened() as client:
        await client.recv()
        await ask(client)
        await client.send("{}")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "insufficient_credits")
    assert app.ended == ["disconnect"]
    assert await books.spent() == COST


@pytest.mark.parametrize("identify", [lambda scope: None])
async def test_nobody_is_refused(books: Books, identify: Any) -> None:
    async with door(books, Realtime(), identify=identify, websocket=one_call) as opened:
        with pytest.raises(InvalidStatus) as refused:
            await opened()
    assert refused.value.response.status_code == 401


async def test_a_callback_that_opens_nothing_gives_nothing_away(books: Books) -> None:
    app = Realtime()

    async def careless(socket: MeteredSocket) -> None:
        await socket.run()

    async with door(books, app, websocket=careless) as opened, opened() as client:
        await client.recv()
        await client.send("{}")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "websocket_not_metered")
    assert (app.answered, app.ended) == (0, ["send failed"])


async def test_a_callback_that_does_not_pass_it_on_refuses_it(books: Books) -> None:
    async def silent(socket: MeteredSocket) -> None:
        await socket.open(estimate=10)

    async with door(books, Realtime(), websocket=silent) as opened:
        with pytest.raises(InvalidStatus) as refused:
            await opened()
    assert refused.value.response.status_code == 403
    [row] = await books.transactions()
    assert (row.charged, row.estimated) == (10, True)


@pytest.mark.parametrize(("greets", "charged"), [(True, 1_000), (False, 0)])
async def test_an_app_that_fails_pays_if_it_has_said_something(books: Books, greets: bool, charged: int) -> None:
    app = Realtime()
    app.failing = True

    async def failing_at_once(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("the model failed")

    async def metered(socket: MeteredSocket) -> None:
        await socket.open(estimate=1_000)
        await socket.run()

    async with door(books, app if greets else failing_at_once, websocket=metered) as opened:
        with suppress(ConnectionClosed, InvalidStatus):
            async with opened() as client:
                await client.recv()
                await ask(client)
        await settled(books)
    assert await books.spent() == charged


async def test_a_client_who_vanishes_pays_for_what_was_recorded(books: Books) -> None:
    async with door(books, Realtime(), websocket=one_call) as opened:
        client = await opened()
        await client.recv()
        await ask(client)
        client.transport.abort()
        await settled(books)
    assert await books.spent() == 2 * 7


async def test_a_connection_is_passed_on_once(books: Books) -> None:
    async def twice(socket: MeteredSocket) -> None:
        await socket.open(estimate=1)
        await socket.run()
        with pytest.raises(ConfigError):
            await socket.run()

    async with door(books, Realtime(), websocket=twice) as opened, opened() as client:
        await client.recv()
    await settled(books)
