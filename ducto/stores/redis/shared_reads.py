"""Answers that are the same for everybody, kept in one Redis hash: one process loads each, for all of them.

Every read asks Redis, so that a reader never sees what was before a publish that was acknowledged; what it asks for is
whether the value that this process has decoded already is still the one. Values are JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from ducto.recently_used import RecentlyUsed
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.stores.redis.tokens import Tokens

__all__ = ["Found", "SharedField", "SharedReads"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

V = TypeVar("V")

#: How long a loader has before another one may try, and how long the others wait for him before they load for
#: themselves.
_LEASE_MS = 500
_WAIT_SECONDS = 0.1
_WAIT_STEP_SECONDS = 0.005

#: How long the difference between the clock of Redis and that of the process is taken for the same, and by how much it
#: may be wrong: the time of an answer's way.
_CLOCK_SECONDS = 10.0
_CLOCK_ERROR_MS = 50

#: How long this process does without Redis after a publish that Redis could not be told of. Longer than anything that
#: was loaded before is served.
_UNTOLD_SECONDS = 1.0
#: The same publish, heard of by many processes at once, is brought to Redis once in this time.
_SAME_NEWS_MS = 1_000

#: Decoded values that the process keeps; each is one version of a config at most.
_DECODED_KEPT = 64


@dataclass(frozen=True, slots=True)
class SharedField(Generic[V]):
    """One kind of answer: its name in the hash, where it comes from, and how old it may be."""

    name: str
    load: Callable[[], Awaitable[V]]
    adapter: TypeAdapter[V]
    max_age_seconds: float
    #: Keep "there is none" too, rather than look again each time.
    keeps_none: bool = True

    @property
    def oldest_ms(self) -> int:
        return round(self.max_age_seconds * 1000)

    @property
    def refresh_ms(self) -> int:
        """From this age on it is loaded anew, while it is still served."""
        return self.oldest_ms * 4 // 5


@dataclass(frozen=True, slots=True)
class Found(Generic[V]):
    """An answer. `epoch` changes whenever something was published; `None` where it did not come by way of Redis."""

    value: V
    epoch: str | None


class _Answer(NamedTuple):
    """What `pricing_read.lua` returns."""

    token: bytes
    what: bytes
    digest: bytes
    text: bytes
    now_ms: int


class SharedReads:
    """The hash at `key`, whose changes are told on `channel`."""

    def __init__(self, link: RedisLink, *, key: str, channel: str, counters: CacheCounters) -> None:
        self._link = link
        self._key = key
        self._channel = channel
        self._counters = counters
        self._decoded: RecentlyUsed[str, tuple[str, Any]] = RecentlyUsed(_DECODED_KEPT)
        self._tokens = Tokens()
        #: What to add to the process's milliseconds for those of Redis, and until when that is good.
        self._clock_ahead_ms = 0.0
        self._clock_good_until = float("-inf")
        self._untold_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, field: SharedField[V]) -> Found[V]:
        """The field's answer, at most its `max_age_seconds` old, and never from before an acknowledged `published`.

        Raises what loading raises.
        """
        try:
            if time.monotonic() >= self._untold_until:
                return await self._as_known(field) or await self._shared(field)
        except RedisUnavailable as error:
            logger.debug("Pricing is read past Redis (%s).", error)
        except ValidationError:
            logger.warning("What Redis has for %s was not written by this version of ducto.", field.name)
        self._counters.fallbacks += 1
        return Found(await field.load(), None)

    async def published(self, version: str | None, *, heard: bool = False) -> None:
        """Let nobody be served what was read before, and tell everybody who listens that `version` is active.

        With `heard` it is news that other processes may be bringing too. Without Redis this process reads past it
        until nothing older can be served any more.
        """
        window_ms = _SAME_NEWS_MS if heard else 0
        arguments = (self._tokens.new(), self._channel, version or "", window_ms)
        try:
            await self._link.script("pricing_published", self._key, *arguments)
        except RedisUnavailable:
            self._untold_until = time.monotonic() + _UNTOLD_SECONDS
            logger.warning("Redis could not be told of published pricing; it is seen when what Redis has grows old.")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` in the background, until `aclose`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _as_known(self, field: SharedField[V]) -> Found[V] | None:
        """What this process has, if Redis says that it is still the one. It costs Redis a tenth of the script."""
        known: tuple[str, V] | None = self._decoded.get(field.name)
        now = time.monotonic()
        if known is None or now >= self._clock_good_until:
            return None
        names = ("g", f"{field.name}:d", f"{field.name}:t")
        token, digest, began_ms = await self._link.command("HMGET", self._key, *names)
        if token is None or digest is None or digest.decode() != known[0]:
            return None
        age_ms = now * 1000 + self._clock_ahead_ms - int(began_ms)
        if not -_CLOCK_ERROR_MS < age_ms < field.refresh_ms:
            return None
        self._counters.hits += 1
        return Found(known[1], f"{token.decode()}:{known[0]}")

    async def _shared(self, field: SharedField[V]) -> Found[V]:
        give_up_at = time.monotonic() + _WAIT_SECONDS
        while True:
            known: tuple[str, V] | None = self._decoded.get(field.name)
            arguments = (self._tokens.new(), known[0] if known else "", field.refresh_ms, field.oldest_ms, _LEASE_MS)
            answer = _Answer(*await self._link.script("pricing_read", self._key, field.name, *arguments))
            now = time.monotonic()
            self._clock_ahead_ms, self._clock_good_until = answer.now_ms - now * 1000, now + _CLOCK_SECONDS
            if answer.what == b"load":
                self._counters.misses += 1
                return await self._load(field, answer)
            if answer.what != b"wait":
                break
            if time.monotonic() >= give_up_at:
                self._counters.misses += 1
                return Found(await field.load(), None)
            await asyncio.sleep(_WAIT_STEP_SECONDS)
        if answer.what == b"refresh":
            self.spawn(self._refresh(field, answer))
        if known is None or known[0] != answer.digest.decode():
            known = answer.digest.decode(), field.adapter.validate_json(answer.text)
            self._decoded.put(field.name, known)
        self._counters.hits += 1
        return Found(known[1], f"{answer.token.decode()}:{known[0]}")

    async def _load(self, field: SharedField[V], answer: _Answer) -> Found[V]:
        keep: tuple[str, ...] = ()
        try:
            value = await field.load()
            text = field.adapter.dump_json(value).decode()
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            if value is not None or field.keeps_none:
                keep = (digest, text)
                self._decoded.put(field.name, (digest, value))
        except BaseException:
            self.spawn(self._fill(field.name, answer))
            raise
        await self._fill(field.name, answer, *keep)
        return Found(value, f"{answer.token.decode()}:{digest}")

    async def _refresh(self, field: SharedField[Any], answer: _Answer) -> None:
        try:
            await self._load(field, answer)
        except Exception as error:  # noqa: BLE001 - whoever finds it too old loads it himself, and gets the error
            logger.warning("Pricing could not be read ahead (%s).", type(error).__name__)

    async def _fill(self, name: str, answer: _Answer, *kept: str) -> None:
        """Keep the value, or without one let the next reader load at once. Without Redis there is nothing to do."""
        try:
            await self._link.script("pricing_fill", self._key, answer.token, name, answer.now_ms, *kept)
        except RedisUnavailable as error:
            logger.debug("Redis did not take what was loaded (%s).", error)
