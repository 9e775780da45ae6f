"""Stores behind a real Redis for one test, and a probe that counts and holds up what reaches the inner store."""

from __future__ import annotations

import functools
import inspect
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ducto.stores.base import CreditStore
from ducto.stores.forwarding import ForwardingStore
from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.redis.link import RedisLink
from ducto.testing.clock import ManualClock
from ducto.testing.servers.redis import redis_server

__all__ = ["CACHED_USER", "PLANS", "Fronts", "ProbedStore", "fronts"]

CACHED_USER = "ann"
PLANS = {
    "plans": {"free": {"free_allowance": 0}, "pro": {"free_allowance": 50, "features": ["vision"]}},
    "default_plan": "free",
}

#: Generous, so that a busy machine is not taken for a Redis that is gone.
PATIENT_SECONDS = 5.0


class ProbedStore(ForwardingStore):
    """Counts the calls that reach `inner`. What is in `after` is awaited when a verb has been answered, by its name;
    what is in `before` when it has come in.
    """

    def __init__(self, inner: CreditStore) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}


def _probed(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def call(self: ProbedStore, *args: Any, **options: Any) -> Any:
        self.calls[name] += 1
        if name in self.before:
            await self.before[name]()
        answer = await method(self, *args, **options)
        if name in self.after:
            await self.after[name]()
        return answer

    return call


for _name, _method in inspect.getmembers(ForwardingStore, inspect.iscoroutinefunction):
    if not _name.startswith("_") and _name != "aclose":
        setattr(ProbedStore, _name, _probed(_name, _method))


@dataclass
class Fronts:
    """Two stores on one Redis and one set of books, as two processes have them; `probe` sees what reaches the books."""

    probe: ProbedStore
    clock: ManualClock
    prefix: str
    stack: AsyncExitStack
    opened: list[RedisCacheStore] = field(default_factory=list)

    @property
    def one(self) -> RedisCacheStore:
        return self.opened[0]

    @property
    def other(self) -> RedisCacheStore:
        return self.opened[1]

    async def open(
        self,
        url: str,
        *,
        budget_seconds: float = PATIENT_SECONDS,
        open_seconds: float = 0.1,
        scripts: Path | None = None,
        **options: Any,
    ) -> RedisCacheStore:
        """One more, with a link of its own."""
        more: dict[str, Any] = {} if scripts is None else {"scripts": scripts}
        link = RedisLink(url, budget_seconds=budget_seconds, open_seconds=open_seconds, **more)
        self.stack.push_async_callback(link.aclose)
        store = RedisCacheStore(self.probe, link, prefix=self.prefix, clock=self.clock, **options)
        await self.stack.enter_async_context(store)
        self.opened.append(store)
        return store


@asynccontextmanager
async def fronts(
    url: str | None = None,
    *,
    budget_seconds: float = PATIENT_SECONDS,
    open_seconds: float = 0.1,
    scripts: Path | None = None,
    **options: Any,
) -> AsyncIterator[Fronts]:
    """Two stores in front of the same memory store, on the shared Redis unless `url` names another."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        made = Fronts(ProbedStore(MemoryStore(clock=clock)), clock, f"test-{secrets.token_hex(6)}", stack)
        for _ in range(2):
            await made.open(
                url or redis_server().url,
                budget_seconds=budget_seconds,
                open_seconds=open_seconds,
                scripts=scripts,
                **options,
            )
        yield made
