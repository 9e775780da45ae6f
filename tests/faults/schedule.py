"""What goes wrong when: a pure function of the seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

__all__ = ["GATEWAYS", "LINKS", "WORKERS", "LinkFault", "ServerFault", "link_faults", "server_faults"]

#: Gateways and library workers by name; the name also says which store they keep their books in.
GATEWAYS = ("gateway-postgres", "gateway-postgrest", "gateway-redis")
WORKERS = ("worker-postgres", "worker-postgrest", "worker-redis")
#: Connections of gateways and workers that run through a proxy of ours, by the server behind it.
LINKS = ("postgres", "postgrest", "redis")

Blow = Literal["kill", "stop"]
Trouble = Literal["drop", "reset", "stall"]

#: Every so often each of these happens, in an order that the seed says.
_ROUND: tuple[tuple[str, Blow], ...] = (
    *((name, "kill") for name in GATEWAYS),
    *((name, "kill") for name in WORKERS),
    ("gateway-postgres", "stop"),
    ("gateway-redis", "stop"),
    *((name, blow) for name in LINKS for blow in ("kill", "stop")),
)
_TROUBLES: tuple[Trouble, ...] = ("drop", "drop", "reset", "stall")


@dataclass(frozen=True, slots=True)
class ServerFault:
    """SIGKILL and a new start at once, or SIGSTOP and SIGCONT after `lasts_seconds`."""

    at_seconds: float
    target: str
    blow: Blow
    lasts_seconds: float


@dataclass(frozen=True, slots=True)
class LinkFault:
    """`drop`: the next `count` replies are swallowed, and the connection ends. `reset`: all connections are reset.
    `stall`: nothing passes for `lasts_seconds`."""

    at_seconds: float
    link: str
    trouble: Trouble
    count: int
    lasts_seconds: float


def server_faults(seed: int, *, seconds: float) -> list[ServerFault]:
    """One every 2 to 5 seconds."""
    chance = random.Random(f"{seed}:servers")
    at, faults, left = 0.0, list[ServerFault](), list[tuple[str, Blow]]()
    while True:
        at += chance.triangular(2.0, 5.0, 2.5)
        if at >= seconds:
            return faults
        if not left:
            left = chance.sample(_ROUND, len(_ROUND))
        target, blow = left.pop()
        faults.append(ServerFault(at, target, blow, chance.uniform(0.7, 1.3)))


def link_faults(seed: int, *, seconds: float) -> list[LinkFault]:
    """One every half to one and a half seconds."""
    chance = random.Random(f"{seed}:links")
    at, faults = 0.0, list[LinkFault]()
    while True:
        at += chance.uniform(0.5, 1.5)
        if at >= seconds:
            return faults
        trouble, link = chance.choice(_TROUBLES), chance.choice(LINKS)
        faults.append(LinkFault(at, link, trouble, chance.randint(1, 3), chance.uniform(0.1, 0.8)))
