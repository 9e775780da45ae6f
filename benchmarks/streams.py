"""What metering costs the gateway where answers are streams: events a second, memory of a stream, time to its first
byte; each beside the same gateway without it.

Both gateways run in processes of their own, served by uvicorn before a memory store; the provider is another process,
and this one is the callers. All streams are opened and stay open, the provider sends each of them so many events a
second, and waits for those that do not keep up, so what arrives is what the gateway could do. The two gateways take
turns. Memory is what the process has in RAM with all streams open and nearly silent, less what it had before, for a
new process each time. The first bytes are those of streams that are opened one after the other, in turns too: with a
model that takes 200 ms to begin, and beside it with one that takes nothing, where the reserve is all there is to see.

Run it with `python -m benchmarks.streams`.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack

from benchmarks.figures import Comparison, Effort, Figure, Section, about, compare, figure, run_alone
from benchmarks.lean_client import LeanStream, open_streams
from benchmarks.provider import Provider, start_provider
from benchmarks.served_gateway import ServedGateway, start_gateway

__all__ = ["AIM_FIRST_BYTE", "AIM_KB", "AIM_RATIO", "main", "measure"]

AIM_RATIO = 0.9
AIM_KB = 25.0
#: Not later: by less than anybody could tell.
AIM_FIRST_BYTE = 1.01

STREAMS = (200, 1_000)
EVENTS_PER_SECOND = 50.0
#: While memory is measured: so few that nothing piles up in buffers.
NEARLY_SILENT = 0.2
#: Until the streams have found their pace after they were opened.
WARM_SECONDS = 2.0
ROUNDS = 3
MEMORY_ROUNDS = 2
FIRST_BYTES = 50
#: What a quick model takes to its first token. One that takes nothing shows what the reserve before it takes.
MODEL_SECONDS = 0.2

_NAMES = {True: "with metering", False: "without"}


async def _close(streams: list[LeanStream], provider: Provider) -> None:
    provider.end_streams()
    for stream in streams:
        await stream.ended.wait()
        stream.transport.close()


async def _events_per_second(
    gateway: ServedGateway, provider: Provider, *, streams: int, seconds: float
) -> tuple[float, float]:
    """Events a second that arrived, and microseconds that the gateway computed for each."""
    provider.tick(0)
    opened = await open_streams(gateway.port, streams)
    provider.tick(EVENTS_PER_SECOND)
    await asyncio.sleep(min(WARM_SECONDS, seconds))
    loop = asyncio.get_running_loop()
    before, begun, computed = sum(one.events for one in opened), loop.time(), gateway.cpu_seconds()
    await asyncio.sleep(seconds)
    events = sum(one.events for one in opened) - before
    elapsed, computed = loop.time() - begun, gateway.cpu_seconds() - computed
    provider.tick(0)
    await _close(opened, provider)
    return events / elapsed, computed / max(1, events) * 1e6


async def _kb_of_a_stream(provider: Provider, *, metered: bool, streams: int) -> float:
    with start_gateway(provider.url, metered=metered) as gateway:
        provider.tick(0)
        await _close(await open_streams(gateway.port, max(1, streams // 10)), provider)
        before = gateway.resident_kb()
        opened = await open_streams(gateway.port, streams)
        provider.tick(NEARLY_SILENT)
        await asyncio.sleep(1.0)
        taken = gateway.resident_kb() - before
        await _close(opened, provider)
        return taken / streams


async def _first_bytes(
    gateways: dict[bool, ServedGateway], provider: Provider, *, count: int, model_seconds: float
) -> dict[bool, Figure]:
    """Milliseconds to the first byte, with a model that takes so long to begin."""
    provider.tick(EVENTS_PER_SECOND, first_event_seconds=model_seconds)
    found: dict[bool, list[float]] = {True: [], False: []}
    for _, (metered, gateway) in itertools.product(range(count), gateways.items()):
        opened = await open_streams(gateway.port, 1)
        found[metered].append(opened[0].first.result() * 1000)
        await _close(opened, provider)
    name = f"time to the first byte of a model that takes {model_seconds * 1000:.0f} ms to begin"
    return {metered: figure(f"{name}, {_NAMES[metered]}", times, unit="ms") for metered, times in found.items()}


async def _measure(effort: Effort) -> Section:
    rounds = 1 if effort.quick else ROUNDS
    counts = (5,) if effort.quick else STREAMS
    compared: list[Comparison] = []
    figures: list[Figure] = []
    with ExitStack() as running:
        provider = running.enter_context(start_provider())
        gateways = {
            metered: running.enter_context(start_gateway(provider.url, metered=metered)) for metered in (True, False)
        }
        opened = 3 if effort.quick else FIRST_BYTES
        first = await _first_bytes(gateways, provider, count=opened, model_seconds=MODEL_SECONDS)
        first_at_once = await _first_bytes(gateways, provider, count=opened, model_seconds=0.0)
        for count in counts:
            rates: dict[bool, list[float]] = {True: [], False: []}
            costs: dict[bool, list[float]] = {True: [], False: []}
            for _, (metered, gateway) in itertools.product(range(rounds), gateways.items()):
                rate, cost = await _events_per_second(gateway, provider, streams=count, seconds=effort.seconds)
                rates[metered].append(rate)
                costs[metered].append(cost)
            what = f"{count:,} open streams, {EVENTS_PER_SECOND:.0f} events/s offered to each"
            ours, peer = (figure(f"{what}, {_NAMES[metered]}", rates[metered], unit="1/s") for metered in (True, False))
            compared.append(compare(what, ours, peer, aim=AIM_RATIO, better="higher", paired=True))
            figures += [
                figure(
                    f"CPU of the gateway for an event, {count:,} streams, {_NAMES[metered]}", costs[metered], unit="us"
                )
                for metered in (True, False)
            ]
        memory: dict[bool, list[float]] = {True: [], False: []}
        for _, metered in itertools.product(range(1 if effort.quick else MEMORY_ROUNDS), (True, False)):
            memory[metered].append(await _kb_of_a_stream(provider, metered=metered, streams=counts[-1]))
    added = [with_it - without for with_it, without in zip(memory[True], memory[False], strict=True)]
    compared.append(
        compare(
            "memory that metering adds to an open stream",
            figure("memory added to a stream", added, unit="KB"),
            aim=AIM_KB,
            better="lower",
        )
    )
    figures += [
        figure(f"memory of an open stream, {_NAMES[metered]}", memory[metered], unit="KB") for metered in (True, False)
    ]
    what = "time to the first byte of a stream"
    compared.append(compare(what, first[True], first[False], aim=AIM_FIRST_BYTE, better="lower"))
    figures += first_at_once.values()
    return Section(
        title="Streams through the gateway",
        about=about(__doc__),
        comparisons=compared,
        figures=figures,
    )


def measure(effort: Effort) -> Section:
    """Events a second of 200 and of 1,000 open streams, memory of each, and time to the first byte."""
    return asyncio.run(_measure(effort))


def main() -> None:
    """Measure and print."""
    run_alone(measure, description=__doc__)


if __name__ == "__main__":
    main()
