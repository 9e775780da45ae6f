"""Carries the schedule out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.network import BackgroundLoop
from tests.faults.schedule import LinkFault, ServerFault, link_faults, server_faults
from tests.faults.world import World

__all__ = ["Blows", "wreak"]


#: How much longer than its time a run may go on until there were enough calls.
LONGEST_FACTOR = 3.0


@dataclass(slots=True)
class Blows:
    """What was done, by target, and in how many seconds."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.kills.total() + self.stops.total()


def wreak(world: World, background: BackgroundLoop, *, enough: Callable[[], bool]) -> Blows:
    """Let everything on the schedule happen, in the setting's time and until it is `enough`. All runs again at the
    end.
    """
    blows, began = Blows(), time.monotonic()
    seed, seconds = world.setting.seed, world.setting.seconds
    longest = seconds * LONGEST_FACTOR
    planned: list[asyncio.TimerHandle] = []
    background.loop.call_soon_threadsafe(_plan_links, world, background, link_faults(seed, seconds=longest), planned)
    for fault in server_faults(seed, seconds=longest):
        if fault.at_seconds >= seconds:
            _sleep_until(began + seconds)
            if enough():
                break
        _sleep_until(began + fault.at_seconds)
        _strike(world, fault, blows)
    blows.seconds = time.monotonic() - began
    background.loop.call_soon_threadsafe(_heal_links, world, planned)
    return blows


def _strike(world: World, fault: ServerFault, blows: Blows) -> None:
    if fault.blow == "kill":
        blows.kills[fault.target] += 1
        world.kill(fault.target)
        return
    blows.stops[fault.target] += 1
    world.pause(fault.target)
    try:
        time.sleep(fault.lasts_seconds)
    finally:
        world.resume(fault.target)


def _plan_links(
    world: World, background: BackgroundLoop, faults: list[LinkFault], planned: list[asyncio.TimerHandle]
) -> None:
    planned += [background.loop.call_later(fault.at_seconds, _trouble, world, fault) for fault in faults]


def _heal_links(world: World, planned: list[asyncio.TimerHandle]) -> None:
    for timer in planned:
        timer.cancel()
    for link in world.links.values():
        link.heal()


def _trouble(world: World, fault: LinkFault) -> None:
    link = world.links[fault.link]
    match fault.trouble:
        case "drop":
            link.drop_replies(fault.count)
        case "reset":
            link.reset()
        case "stall":
            link.stall(fault.lasts_seconds)


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
