"""What metering costs the gateway: requests a second with and without it, time added to a request and to an event.

The provider is another process behind a real socket, which answers each request with the same 1 KB of JSON. The gateway
is asked in two ways: as it is deployed, in a process of its own behind uvicorn, over sockets from this process; and
through ASGI alone in this process, where nothing hides what metering costs. With metering and without it take turns, so
that a slow moment of the machine hits both, and the median of the rounds' ratios counts. The time of single requests is
taken at a moderate load: they begin at random moments, each at a gateway chosen by chance. The events are those of a
chat stream of 250 bytes each, from an app in this process, once read in passing and once with the event hidden that the
middleware asked for.

Run it with `python -m benchmarks.gateway`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from benchmarks.lean_client import FIELDS, latencies, requests_per_second
from benchmarks.provider import CHUNK, LAST, start_provider
from benchmarks.served_gateway import KEY, PATH, PRICING, start_gateway
from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.middleware import MeteringMiddleware
from ducto.stores.memory import MemoryStore

__all__ = ["main", "measure"]

AIM_RATIO = 0.8
AIM_P99_MS = 1.0
AIM_EVENT_US = 10.0

ROUNDS = 9
CALLERS = 8
REQUESTS_PER_ROUND = 300
#: Requests a second to both gateways together: far below what one of them can do.
MODERATE = 150.0
EVENTS = 2_000

_NAMES = {True: "with metering", False: "without metering"}
Samples = dict[bool, list[float]]


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


async def call(app: Any, body: bytes) -> None:
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


async def _streaming(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(EVENTS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": LAST, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cpu_seconds(app: Any, body: bytes) -> float:
    begin = time.process_time()
    await call(app, body)
    return time.process_time() - begin


@asynccontextmanager
async def in_process(provider_url: str) -> AsyncIterator[dict[bool, Any]]:
    """The gateway with metering and the same one without it, to be called through ASGI."""
    async with CreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("bench", 10**12, "purchase", idempotency_key="bench")
        upstream = Upstream(provider_url, api_key="provider")
        apps = {kind: build_gateway(manager, openai=upstream, keys={KEY: "bench"}, metered=kind) for kind in _NAMES}
        async with apps[True].router.lifespan_context(apps[True]), apps[False].router.lifespan_context(apps[False]):
            yield apps


async def _through_asgi(provider_url: str, *, rounds: int, requests: int) -> tuple[Samples, Samples]:
    """Requests a second, and microseconds that this process computed for each."""
    body = json.dumps(FIELDS).encode()
    rates: Samples = {True: [], False: []}
    costs: Samples = {True: [], False: []}

    async def work(app: Any) -> None:
        for _ in range(requests // CALLERS):
            await call(app, body)

    async with in_process(provider_url) as apps:
        for _, (metered, app) in itertools.product(range(rounds + 1), apps.items()):
            begun, computed = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work(app) for _ in range(CALLERS)))
            rates[metered].append(requests // CALLERS * CALLERS / (time.perf_counter() - begun))
            costs[metered].append((time.process_time() - computed) / (requests // CALLERS * CALLERS) * 1e6)
    return _warmed(rates), _warmed(costs)


async def _deployed(provider_url: str, *, rounds: int, seconds: float) -> tuple[Samples, Samples, list[Samples]]:
    """Requests a second, microseconds that the gateway computed for each, and, in rounds, milliseconds of single
    requests at a moderate load.
    """
    rates: Samples = {True: [], False: []}
    costs: Samples = {True: [], False: []}
    with ExitStack() as running:
        gateways = {kind: running.enter_context(start_gateway(provider_url, metered=kind)) for kind in _NAMES}
        for _, (metered, gateway) in itertools.product(range(rounds + 1), gateways.items()):
            computed = gateway.cpu_seconds()
            rate = await requests_per_second(gateway.port, callers=CALLERS, seconds=seconds / 3)
            costs[metered].append((gateway.cpu_seconds() - computed) / (rate * seconds / 3) * 1e6)
            rates[metered].append(rate)
        ports = [gateway.port for gateway in gateways.values()]
        taken = [await latencies(ports, per_second=MODERATE, seconds=2 * seconds) for _ in range(rounds)]
    times = [{kind: [each * 1000 for each in of] for kind, of in zip(gateways, one, strict=True)} for one in taken]
    return _warmed(rates), _warmed(costs), times


async def _events(*, rounds: int) -> Samples:
    """Microseconds added to an event: by name of what the middleware does."""
    async with CreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("bench", 10**12, "purchase", idempotency_key="bench")
        door = MeteringMiddleware(_streaming, manager, identify=lambda scope: "bench")
        hiding = json.dumps({**FIELDS, "stream": True}).encode()
        reading = json.dumps({**FIELDS, "stream": True, "stream_options": {"include_usage": True}}).encode()
        added: Samples = {True: [], False: []}
        for _ in range(rounds + 1):
            base = await _cpu_seconds(_streaming, reading)
            added[True].append((await _cpu_seconds(door, hiding) - base) / EVENTS * 1e6)
            added[False].append((await _cpu_seconds(door, reading) - base) / EVENTS * 1e6)
    return _warmed(added)


def _warmed(samples: Samples) -> Samples:
    """Without the first round, which warms up connections and caches."""
    return {kind: of[1:] for kind, of in samples.items()}


def _percentile(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def _added(times: list[Samples], share: float) -> list[float]:
    return [_percentile(one[True], share) - _percentile(one[False], share) for one in times]


def _compared(what: str, rates: Samples) -> Comparison:
    ours, peer = (figure(f"{what}, {_NAMES[kind]}", rates[kind], unit="1/s") for kind in (True, False))
    return compare(f"requests with metering, {what}", ours, peer, aim=AIM_RATIO, better="higher", paired=True)


async def _measure(effort: Effort) -> Section:
    rounds, requests = (1, CALLERS) if effort.quick else (ROUNDS, REQUESTS_PER_ROUND)
    with start_provider() as provider:
        alone, costs = await _through_asgi(provider.url, rounds=rounds, requests=requests)
        deployed, computed, times = await _deployed(provider.url, rounds=min(rounds, 5), seconds=effort.seconds)
    added = await _events(rounds=rounds)
    p99 = figure("time that metering adds to a request, p99", _added(times, 0.99), unit="ms")
    compared = [
        _compared("plain 1 KB answers, behind uvicorn", deployed),
        _compared("plain 1 KB answers, through ASGI alone", alone),
        compare(f"time added to a request, p99, {MODERATE:.0f} requests/s", p99, aim=AIM_P99_MS, better="lower"),
    ]
    for name, samples in (("read in passing", added[False]), ("an event hidden as well", added[True])):
        cost = figure(f"CPU added to an event, {name}", samples, unit="us")
        compared.append(compare(f"CPU added to a streamed event, {name}", cost, aim=AIM_EVENT_US, better="lower"))
    figures: list[Figure] = [
        *(
            figure(f"CPU of a request behind uvicorn, {_NAMES[kind]}", computed[kind], unit="us")
            for kind in (True, False)
        ),
        *(figure(f"CPU of a request through ASGI, {_NAMES[kind]}", costs[kind], unit="us") for kind in (True, False)),
        figure(
            "CPU that metering adds to a request",
            statistics.median(costs[True]) - statistics.median(costs[False]),
            unit="us",
        ),
        figure("time that metering adds to a request, median", _added(times, 0.5), unit="ms"),
        *(
            figure(
                f"time of a request, p99, {_NAMES[kind]}", [_percentile(one[kind], 0.99) for one in times], unit="ms"
            )
            for kind in (True, False)
        ),
    ]
    return Section("Requests through the gateway", about(__doc__), compared, figures)


def measure(effort: Effort) -> Section:
    """Requests a second with and without metering, and what it adds to a request and to an event."""
    return asyncio.run(_measure(effort))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
