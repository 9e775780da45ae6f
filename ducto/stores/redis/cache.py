"""Cached reads of accounts, with a fence: what was loaded before a write is never kept or served after it.

All reads of an account are fields of one Redis hash, which has a random token. Who loads notes the token first, and
what he loaded is kept only if the token is still there. A write deletes the hash, and the token with it, before anybody
is told of the write. That is all: a flush, an eviction or a Redis that was restarted empty is as good as a write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ducto.errors import StoreError
from ducto.models.base import Row
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.keys import RedisKeys
from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.stores.redis.tokens import Tokens
from ducto.stores.redis.untold import UntoldWrites
from ducto.stores.redis.values import SKEW, CachedRead, Moment, milliseconds

__all__ = ["HOLD_SECONDS", "AccountCache"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

Kept = TypeVar("Kept", bound=Row)
Value = TypeVar("Value")

#: How long a write whose outcome is not known may still take effect: longer than any call runs in a database.
HOLD_SECONDS = 15.0
#: How long a loader has before another one may try, and how long the others wait for him before they ask the inner
#: store themselves.
_LEASE_MS = 500
_WAIT_SECONDS = 0.08
_WAIT_STEP_SECONDS = 0.005


class AccountCache:
    """Reads through Redis. Nothing in it is ever older than `ttl_seconds`. `clock` gives aware datetimes.

    `epoch` gives a text that changes whenever pricing does; it raises `RedisUnavailable` where it is not known.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        ttl_seconds: float,
        clock: Callable[[], datetime],
        epoch: Callable[[], Awaitable[str]],
        counters: CacheCounters,
    ) -> None:
        self._link = link
        self._ttl_ms = round(ttl_seconds * 1000)
        self._clock = clock
        self._epoch = epoch
        self._counters = counters
        self._tokens: Tokens | None = None
        self._untold = UntoldWrites(seconds=ttl_seconds, monotonic=time.monotonic)
        self._latest = clock()
        #: Loads that run in this process: done when what they load has been kept.
        self._loading: dict[tuple[str, str], asyncio.Future[None]] = {}

    async def read(
        self,
        kind: CachedRead[Kept],
        account: str,
        load: Callable[[], Awaitable[Kept]],
        *,
        own: Mapping[str, Any] | None = None,
    ) -> Kept:
        """The answer of `load`, from Redis where it has it. `own` are the fields that are the asker's own.

        Raises what `load` raises, and nothing else: without Redis the answer is that of `load`.
        """
        own = own or {}
        try:
            moment, text = await self._look(kind, account)
            found = kind.decode(text, moment, own)
            if found is not None:
                self._counters.hits += 1
                return found
            kept_by_others, token = await self._wait_or_lead(kind, account, text, moment, own)
        except (RedisUnavailable, StoreError):
            self._counters.fallbacks += 1
            return await load()
        if kept_by_others is not None:
            self._counters.hits += 1
            return kept_by_others
        self._counters.misses += 1
        if token is None:
            return await load()
        return await self._load_and_keep(kind, account, load, moment, token)

    async def watch(self, account: str, field: str, *, longest_ms: int) -> tuple[str, bytes]:
        """The account's token, and what `keep` has put under `field` at most `longest_ms` ago; `""` and `b""` for none.

        Raises `RedisUnavailable`.
        """
        await self.make_sure(account)
        token, text = await self._link.script(
            "account_watch", account, field, self._new_token(), self._ttl_ms, longest_ms
        )
        return token.decode(), text

    async def keep(self, account: str, token: str, field: str, text: str, *, for_ms: int) -> None:
        """Keep a text for so long, unless the account was written to since `token` was found."""
        try:
            await self._link.script("account_fill", account, token, field, text, for_ms)
        except RedisUnavailable:
            self._counters.fallbacks += 1

    async def written(self, accounts: Sequence[str]) -> None:
        """To be awaited after a write to `accounts`, before anybody is told of it."""
        if len(accounts) == 1:
            await self._forget(accounts[0])
        else:
            await asyncio.gather(*map(self._forget, accounts))

    async def perhaps_written(self, accounts: Sequence[str]) -> None:
        """To be awaited after a call whose outcome is not known: the write may take effect even later."""
        await asyncio.gather(*(self._forget(account, hold_seconds=HOLD_SECONDS) for account in accounts))

    def now(self) -> datetime:
        """The time by the clock. Once it was set back, nothing is believed that was kept before that."""
        now = self._clock()
        if now > self._latest:
            self._latest = now
        elif now <= self._latest - SKEW:
            self._latest = now
            self._untold.add_all()
        return now

    async def with_epoch(self, work: Coroutine[Any, Any, Value]) -> tuple[str, Value]:
        """The pricing epoch, and what `work` gives: both asked together, so that they travel in one pipeline.

        Raises what either raises, `RedisUnavailable` and `StoreError`.
        """
        epoch = asyncio.ensure_future(self._epoch())
        try:
            found = await work
        except BaseException:
            epoch.cancel()
            await asyncio.gather(epoch, return_exceptions=True)
            raise
        return await epoch, found

    async def make_sure(self, account: str) -> None:
        """Tell Redis of what it could not be told before, so that it can be read. Raises `RedisUnavailable`."""
        untold = self._untold.find(account)
        if untold is None:
            return
        hold_seconds = max(0.0, untold.held_until - time.monotonic())
        await self._tell(account, hold_seconds=hold_seconds)
        self._untold.told(account, untold)

    async def _look(self, kind: CachedRead[Kept], account: str) -> tuple[Moment, bytes | None]:
        now_ms = milliseconds(self.now())
        await self.make_sure(account)
        if not kind.by_pricing:
            return Moment(now_ms), await self._link.command("HGET", account, kind.field)
        epoch, text = await self.with_epoch(self._link.command("HGET", account, kind.field))
        return Moment(now_ms, epoch), text

    async def _wait_or_lead(
        self, kind: CachedRead[Kept], account: str, seen: bytes | None, moment: Moment, own: Mapping[str, Any]
    ) -> tuple[Kept | None, str | None]:
        """What another loader has kept meanwhile; else the token with which to load, `None` to load and keep nothing.

        A value is only ever taken from Redis, never handed on within the process: it may be from before a write that
        was acknowledged elsewhere, and then Redis does not have it any more.
        """
        loading = self._loading.get((account, kind.field))
        if loading is not None:
            await asyncio.wait((loading,), timeout=_WAIT_SECONDS)
        give_up_at = time.monotonic() + _WAIT_SECONDS
        while True:
            what, text = await self._link.script(
                "account_load", account, kind.field, seen or b"", self._new_token(), self._ttl_ms, _LEASE_MS
            )
            if what == b"load":
                return None, text.decode()
            if what == b"found":
                found = kind.decode(text, moment, own)
                if found is not None:
                    return found, None
                seen = text
                continue
            if what == b"held" or time.monotonic() > give_up_at:
                return None, None
            await asyncio.sleep(_WAIT_STEP_SECONDS)

    async def _load_and_keep(
        self,
        kind: CachedRead[Kept],
        account: str,
        load: Callable[[], Awaitable[Kept]],
        moment: Moment,
        token: str,
    ) -> Kept:
        place = (account, kind.field)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loading.setdefault(place, ended)
        try:
            try:
                value = await load()
            except Exception:
                await self._give_lease_back(kind, account)
                raise
            try:
                await self._link.script("account_fill", account, token, kind.field, kind.encode(value, moment))
            except RedisUnavailable:
                self._counters.fallbacks += 1
            return value
        finally:
            if self._loading.get(place) is ended:
                del self._loading[place]
            ended.set_result(None)

    async def _give_lease_back(self, kind: CachedRead[Kept], account: str) -> None:
        try:
            await self._link.command("HDEL", account, f"l:{kind.field}")
        except RedisUnavailable:
            self._counters.fallbacks += 1

    def _new_token(self) -> str:
        if self._tokens is None:
            # Not before the first use: processes that were forked from one that made the store must not share them.
            self._tokens = Tokens()
        return self._tokens.new()

    async def _forget(self, account: str, *, hold_seconds: float = 0.0) -> None:
        try:
            await self._tell(account, hold_seconds=hold_seconds)
        except RedisUnavailable:
            self._counters.fallbacks += 1
            self._untold.add(account, hold_seconds=hold_seconds)

    async def _tell(self, account: str, *, hold_seconds: float) -> None:
        if hold_seconds > 0:
            # The hold first: from then on nobody keeps what he loads.
            await self._link.command("SET", RedisKeys.hold(account), "1", "PX", round(hold_seconds * 1000))
        await self._link.command("DEL", account)
