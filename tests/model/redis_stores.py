"""Stores behind a real Redis for the model test, and what happens to that Redis meanwhile."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Literal

from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import RedisLink
from ducto.testing.clock import ManualClock
from ducto.testing.servers.redis import RedisServer, start_redis
from tests.model.sql_stores import SqlSide, open_side

__all__ = ["FAULTS", "Fault", "RedisSide", "open_redis_side"]

Fault = Literal["none", "stopped", "paused", "flushed", "restarted"]
#: What is done to Redis again and again, or once and for all; a step takes about a millisecond.
FAULTS: tuple[Fault, ...] = ("stopped", "paused", "flushed", "restarted")
_EVERY_SECONDS = 0.1


class RedisSide:
    """A store behind Redis, beside the memory store of the model. Each example has a new one under a new prefix."""

    def __init__(self, link: RedisLink, inner: SqlSide | None, *, cheap_refusals: bool) -> None:
        self._link = link
        self._inner = inner
        self._cheap_refusals = cheap_refusals
        self._clock = ManualClock()
        self._store: RedisCacheStore | None = None
        #: Of all examples.
        self.counters: list[CacheCounters] = []

    @property
    def store(self) -> CreditStore:
        assert self._store is not None
        return self._store

    async def start(self, now: datetime) -> None:
        if self._store is not None:
            await self._store.aclose()
        self._clock.set(now)
        if self._inner is not None:
            await self._inner.start(now)
        self._store = RedisCacheStore(
            MemoryStore(clock=self._clock) if self._inner is None else self._inner.store,
            self._link,
            prefix=f"model-{secrets.token_hex(6)}",
            cheap_refusals=self._cheap_refusals,
            clock=self._clock,
        )
        self.counters.append(self._store.counters)

    async def set_clock(self, now: datetime) -> None:
        self._clock.set(now)
        if self._inner is not None:
            await self._inner.set_clock(now)

    def total(self, name: str) -> int:
        return sum(getattr(each, name) for each in self.counters)


@asynccontextmanager
async def open_redis_side(
    inner: Literal["memory", "postgres"], fault: Fault, *, cheap_refusals: bool
) -> AsyncIterator[RedisSide]:
    """The side, with `fault` happening to its Redis again and again from now on."""
    async with contextlib.AsyncExitStack() as stack:
        sql = await stack.enter_async_context(open_side("postgres18")) if inner == "postgres" else None
        server = stack.enter_context(start_redis())
        # A circuit that closes soon, so that much of the run meets a Redis that has just come back.
        link = RedisLink(server.url, budget_seconds=0.02, open_seconds=0.03)
        stack.push_async_callback(link.aclose)
        stack.enter_context(_happening(server, fault))
        yield RedisSide(link, sql, cheap_refusals=cheap_refusals)


def _nothing() -> None:
    """A turn in which nothing happens."""


def _until(ended: threading.Event) -> None:
    ended.wait()


@contextmanager
def _happening(server: RedisServer, fault: Fault) -> Iterator[None]:
    """Let `fault` happen in a thread of its own, until the end."""
    ended = threading.Event()

    def repeat(*steps: Callable[[], None]) -> None:
        while True:
            for step in steps:
                if ended.wait(_EVERY_SECONDS):
                    return
                step()

    steps: dict[Fault, tuple[Callable[[], None], ...]] = {
        "none": (),
        "stopped": (*[_nothing] * 12, server.kill, lambda: _until(ended)),
        "paused": (server.pause, server.resume),
        "flushed": (server.flush,),
        "restarted": (server.restart_empty,),
    }
    thread = threading.Thread(target=repeat, args=steps[fault], daemon=True)
    if steps[fault]:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if steps[fault]:
            thread.join()
            if fault == "paused":
                server.resume()
