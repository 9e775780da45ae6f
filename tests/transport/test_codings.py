"""Compressed answers: the client decodes what the provider sent, and the usage is read from the same bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from ducto.middleware.content_decoding import ContentDecoder, UndecodableError
from ducto.testing.serving import serve
from tests.middleware.support import CHAT, Books
from tests.transport.support import CHAT as BODY
from tests.transport.support import LIBRARIES, client_of

ANSWER = json.dumps({"object": "chat.completion", "usage": {"prompt_tokens": 9, "completion_tokens": 8}}).encode()
EVENTS = [
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 8}}\n\n',
    b"data: [DONE]\n\n",
]
COST = 9 + 2 * 8
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "gzip, deflate": lambda data: zlib.compress(gzip.compress(data)),
}
# Only where a client would decode them: test_older_sdks.py has environments that can.
if find_spec("brotli") is not None:
    ENCODERS["br"] = lambda data: bytes(import_module("brotli").compress(data))
if find_spec("zstandard") is not None:
    ENCODERS["zstd"] = lambda data: bytes(import_module("zstandard").compress(data))
elif find_spec("backports") is not None and find_spec("backports.zstd") is not None:
    ENCODERS["zstd"] = lambda data: bytes(import_module("backports.zstd").compress(data))

#: httpx decodes Zstandard with the one package, httpx2 with the other.
DECODED = [
    (library, coding)
    for library in LIBRARIES
    for coding in ENCODERS
    if coding != "zstd" or (library == "httpx") == (find_spec("zstandard") is not None)
]


def app_sending_encoded(chunks: list[bytes], *, coding: str, media_type: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", media_type.encode()), (b"content-encoding", coding.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def cut(data: bytes, size: int = 7) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize(("library", "coding"), DECODED)
@pytest.mark.parametrize("stream", [False, True])
async def test_encoded_answers_are_read(library: str, coding: str, stream: bool, books: Books) -> None:
    plain = b"".join(EVENTS) if stream else ANSWER
    media_type = "text/event-stream" if stream else "application/json"
    encoded = ENCODERS[coding](plain)
    app = app_sending_encoded(list(cut(encoded)), coding=coding, media_type=media_type)
    async with serve(app) as url, client_of(library, books) as client:
        async with client.stream("POST", url + CHAT, json={**BODY, "stream": stream}) as response:
            raw = b"".join([part async for part in response.aiter_raw()])
        assert raw == encoded
        answer = await client.post(url + CHAT, json={**BODY, "stream": stream})
        assert answer.content == plain
    rows = await books.transactions()
    assert [row.charged for row in rows] == [COST, COST]
    assert not any(row.estimated for row in rows)


async def test_what_cannot_be_decoded_passes_and_is_estimated(books: Books) -> None:
    app = app_sending_encoded([b"gibberish"], coding="gzip", media_type="application/json")
    unknown = app_sending_encoded([ANSWER], coding="rot13", media_type="application/json")
    async with serve(app) as damaged, serve(unknown) as unheard_of, client_of(LIBRARIES[0], books) as client:
        for url in (damaged, unheard_of):
            async with client.stream("POST", url + CHAT, json=BODY) as response:
                assert b"".join([part async for part in response.aiter_raw()]) in (b"gibberish", ANSWER)
    assert [row.estimated for row in await books.transactions()] == [True, True]


@pytest.mark.parametrize("coding", ENCODERS)
def test_every_cut_decodes_to_the_same(coding: str) -> None:
    data = bytes(range(256)) * 40
    encoded = ENCODERS[coding](data)
    for size in (1, 7, 1_000, len(encoded)):
        decoder = ContentDecoder([part.strip().encode() for part in coding.split(",")])
        assert b"".join(piece for part in cut(encoded, size) for piece in decoder.feed(part)) == data


def test_raw_deflate_is_deflate_too() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(ANSWER) + packer.flush()
    assert b"".join(ContentDecoder([b"deflate"]).feed(data)) == ANSWER


def test_a_bomb_comes_in_bounded_pieces() -> None:
    sizes = [len(piece) for piece in ContentDecoder([b"gzip"]).feed(gzip.compress(bytes(20_000_000)))]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 1 << 20


def test_unknown_and_too_many_codings_are_told() -> None:
    for codings in ([b"rot13"], [b"gzip"] * 6):
        with pytest.raises(UndecodableError):
            ContentDecoder(codings)
    with pytest.raises(UndecodableError):
        list(ContentDecoder([b"gzip"]).feed(b"gibberish"))
