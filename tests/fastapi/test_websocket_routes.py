"""`RequireCredits` on WebSocket routes of FastAPI, over a real server: one call for each connection."""

# Without `annotations` of the future: FastAPI would look for the names in them outside of the tests' functions.

import asyncio
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ducto.meter import MeteredCall
from ducto.middleware.fastapi import RequireCredits
from ducto.testing.serving import serve
from tests.fastapi.support import ALICE, current_user
from tests.middleware.support import START, Books


def app_of(books: Books, amount: int) -> FastAPI:
    app = FastAPI()
    credits = RequireCredits(books.manager, user=current_user, amount=amount)

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, call: Annotated[MeteredCall, Depends(credits)]) -> None:
        await websocket.accept()
        used = 0
        async for text in websocket.iter_text():
            used += len(text)
            call.record(used)
            await websocket.send_text(text.upper())

    return app


async def test_a_connection_is_one_call(books: Books) -> None:
    async with serve(app_of(books, 500), websockets=True) as url:
        async with connect(url.replace("http", "ws") + "/talk", additional_headers=ALICE, proxy=None) as client:
            for word in ("one", "three"):
                await client.send(word)
                assert await client.recv() == word.upper()
            assert (await books.store.get_available("alice")).held == 500
        async with asyncio.timeout(5):
            while (await books.store.get_available("alice")).held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    [row] = await books.transactions()
    assert (row.charged, row.operation_type) == (8, "/talk")


@pytest.mark.parametrize(("headers", "amount"), [(ALICE, START + 1), ({}, 1)])
async def test_a_refused_connection_is_not_accepted(books: Books, headers: dict[str, str], amount: int) -> None:
    async with serve(app_of(books, amount), websockets=True) as url:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url.replace("http", "ws") + "/talk", additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 403
