"""What metering costs the gateway: requests a second with and without it, and time added to a streamed chunk.

The provider is another process behind a real socket, which answers each request with the same 1 KB of JSON. The
gateway is called through ASGI in this process, metered and not metered in turns, so that a slow moment of the machine
hits both; the medians of the rounds are compared. The chunks are those of a chat stream of 250 bytes each, from an app
in this process, once read in passing and once with the event hidden that the middleware asked for.

Run it with `python -m benchmarks.gateway`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.middleware import MeteringMiddleware
from ducto.stores.memory import MemoryStore

AIM_RATIO = 0.7
AIM_CHUNK_US = 10.0

ROUNDS = 9
REQUESTS_PER_ROUND = 300
CONCURRENT = 8
CHUNKS = 2_000

PATH = "/v1/chat/completions"
KEY = "bench"
PRICING = {
    "version": 1,
    "models": {"m": {"unit": "usd", "input": "0.15", "output": "0.60", "max_output_tokens": 1_000}},
}
USAGE = {"prompt_tokens": 20, "completion_tokens": 200, "total_tokens": 220}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 750}, "finish_reason": "stop"}],
    "usage": USAGE,
}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Tell me something."}], "max_tokens": 300}


async def _provide(pipe: Connection) -> None:
    body = json.dumps(ANSWER).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = asked.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
                await reader.readexactly(int(length))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _provider_process(pipe: Connection) -> None:
    try:
        asyncio.run(_provide(pipe))
    except KeyboardInterrupt:
        return


def _scope(body: bytes) -> dict[str, Any]:
    headers = [
        (b"authorization", b"Bearer " + KEY.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"user-agent", b"bench"),
        (b"accept", b"application/json"),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("bench", 80),
    }


async def _call(app: Any, body: bytes) -> None:
    """One request; returns when the answer is complete."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    never = asyncio.get_running_loop().create_future()
    status = 0

    async def receive() -> Any:
        message = next(messages, None)
        return message if message is not None else await never

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(_scope(body), receive, send)
    assert status == 200, status


async def _requests_per_second(app: Any, body: bytes) -> float:
    async def work() -> None:
        for _ in range(REQUESTS_PER_ROUND // CONCURRENT):
            await _call(app, body)

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return REQUESTS_PER_ROUND // CONCURRENT * CONCURRENT / (time.perf_counter() - begin)


async def _streaming(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    delta = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
    envelope = {"id": "chatcmpl-" + "1" * 29, "object": "chat.completion.chunk", "created": 1, "model": "m-2026-01-01"}
    named = {**envelope, "service_tier": "default", "system_fingerprint": "fp_0123456789"}
    chunk = b"data: " + json.dumps({**named, "choices": [delta]}, separators=(",", ":")).encode() + b"\n\n"
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    last = json.dumps({**named, "choices": [], "usage": USAGE}).encode()
    await send({"type": "http.response.body", "body": b"data: " + last + b"\n\ndata: [DONE]\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _seconds(app: Any, body: bytes) -> float:
    begin = time.perf_counter()
    await _call(app, body)
    return time.perf_counter() - begin


@asynccontextmanager
async def _gateways(manager: CreditManager) -> AsyncIterator[tuple[Any, Any]]:
    """The metered gateway and the same one without metering, before a provider in another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    provider = context.Process(target=_provider_process, args=(theirs,), daemon=True)
    provider.start()
    try:
        upstream = Upstream(f"http://127.0.0.1:{ours.recv()}", api_key="provider")
        metered, bare = (
            build_gateway(manager, openai=upstream, keys={KEY: "bench"}, metered=metered) for metered in (True, False)
        )
        async with metered.router.lifespan_context(metered), bare.router.lifespan_context(bare):
            yield metered, bare
    finally:
        provider.terminate()
        provider.join()


async def _measure() -> dict[str, float]:
    async with CreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("bench", 10**12, "purchase", idempotency_key="bench")
        body = json.dumps(REQUEST).encode()
        rates: dict[bool, list[float]] = {True: [], False: []}
        async with _gateways(manager) as (metered, bare):
            for _ in range(ROUNDS + 1):
                rates[True].append(await _requests_per_second(metered, body))
                rates[False].append(await _requests_per_second(bare, body))
        door = MeteringMiddleware(_streaming, manager, identify=lambda scope: "bench")
        hiding = json.dumps({**REQUEST, "stream": True}).encode()
        reading = json.dumps({**REQUEST, "stream": True, "stream_options": {"include_usage": True}}).encode()
        added: dict[str, list[float]] = {"read": [], "hidden": []}
        for _ in range(ROUNDS + 1):
            base = await _seconds(_streaming, reading)
            added["read"].append((await _seconds(door, reading) - base) / CHUNKS)
            added["hidden"].append((await _seconds(door, hiding) - base) / CHUNKS)
    # The first round of each warms up connections and caches.
    with_metering, without = (statistics.median(rates[kind][1:]) for kind in (True, False))
    return {
        "requests_per_second_metered": with_metering,
        "requests_per_second_bare": without,
        "ratio": with_metering / without,
        "chunk_read_us": statistics.median(added["read"][1:]) * 1e6,
        "chunk_hidden_us": statistics.median(added["hidden"][1:]) * 1e6,
    }


def measure() -> dict[str, float]:
    """Requests a second with and without metering, their ratio, and microseconds added to a chunk; medians."""
    return asyncio.run(_measure())


def main() -> None:
    """Print the table."""
    found = measure()
    print(f"gateway, 1 KB of JSON: {found['requests_per_second_metered']:.0f} requests/s metered, ", end="")
    print(f"{found['requests_per_second_bare']:.0f} without; ratio {found['ratio']:.2f} (aim {AIM_RATIO})")
    print(f"streamed chunk: +{found['chunk_read_us']:.1f} us where usage is read, ", end="")
    print(f"+{found['chunk_hidden_us']:.1f} us where an event is hidden as well (aim {AIM_CHUNK_US:.0f})")


if __name__ == "__main__":
    main()
