"""What all verbs of the Redis-fronted store go through: a write drops what is kept of its accounts, then answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ducto.errors import ConfigError, CreditError, DuctoError, NotSupportedError, StoreError
from ducto.fresh_keys import FreshKey, is_fresh
from ducto.models import AvailableResult, Metadata, Outcome, RefusalDetails
from ducto.stores.base import CreditStore
from ducto.stores.forwarding import ForwardingStore
from ducto.stores.redis.cache import AccountCache
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.keys import RedisKeys, digest
from ducto.stores.redis.link import RedisLink
from ducto.stores.redis.pricing import RedisPricing
from ducto.stores.redis.refusals import Asked, Refusals, Watched, is_well_formed
from ducto.stores.redis.replies import KeyedCall, Replies
from ducto.stores.redis.values import AVAILABLE, NO_CAPS, NoCaps
from ducto.usage import UsageMetrics

if TYPE_CHECKING:
    import redis.asyncio

__all__ = ["RedisFront"]

Value = TypeVar("Value")
Result = TypeVar("Result", bound=Outcome)

_DRAIN_SECONDS = 10.0


class RedisFront(ForwardingStore):
    """The parts of `RedisCacheStore`, and how a call goes through them."""

    def __init__(
        self,
        inner: CreditStore,
        redis: str | redis.asyncio.Redis | redis.asyncio.RedisCluster | RedisLink,
        *,
        ttl_seconds: float,
        prefix: str,
        reply_ttl_seconds: int,
        cheap_refusals: bool,
        clock: Callable[[], datetime],
        owns_inner: bool,
    ) -> None:
        super().__init__(inner, owns_inner=owns_inner)
        _check_settings(ttl_seconds, prefix, reply_ttl_seconds, clock)
        self._owns_link = not isinstance(redis, RedisLink)
        self._link = redis if isinstance(redis, RedisLink) else RedisLink(redis)
        self._keys = RedisKeys(prefix)
        #: What was answered from Redis, and what was not.
        self.counters: CacheCounters = CacheCounters()
        self._pricing = RedisPricing(self._link, inner, prefix=prefix, counters=self.counters)
        self._cache = AccountCache(
            self._link,
            ttl_seconds=ttl_seconds,
            clock=clock,
            epoch=self._pricing.epoch,
            counters=self.counters,
        )
        self._replies = Replies(self._link, ttl_seconds=reply_ttl_seconds, counters=self.counters)
        self._refusals = Refusals(self._cache, counters=self.counters) if cheap_refusals else None
        self._running: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        """Wait for the writes that run, then close what the store opened itself. Harmless when repeated."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=_DRAIN_SECONDS)
        await self._pricing.aclose()
        if self._owns_link:
            await self._link.aclose()
        await super().aclose()

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        return await self._cache.read(
            AVAILABLE,
            self._keys.payer(user_id, team_id),
            lambda: self._inner.get_available(user_id, team_id=team_id),
            own={"user_id": user_id},
        )

    async def _written(
        self,
        accounts: Sequence[str],
        call: Callable[[], Awaitable[Value]],
        *,
        keyed: KeyedCall[Any] | None = None,
    ) -> Value:
        """The answer of a writing call, given when Redis has forgotten the accounts.

        It goes on though its caller is cancelled: who has written must also drop what is kept.
        """
        return await self._to_the_end(self._write(accounts, call, keyed))

    async def _write(
        self, accounts: Sequence[str], call: Callable[[], Awaitable[Value]], keyed: KeyedCall[Any] | None
    ) -> Value:
        try:
            answer = await call()
        except BaseException as error:
            if not _is_refusal(error):
                await self._cache.perhaps_written(accounts)
            raise
        if isinstance(answer, Outcome) and answer.error is not None:
            return answer  # Nothing was written.
        if keyed is None or not isinstance(answer, Outcome):
            await self._cache.written(accounts)
        else:
            await asyncio.gather(self._cache.written(accounts), self._replies.remember(keyed, answer))
        return answer

    async def _published(self, call: Callable[[], Awaitable[str]], *, is_first_answer: bool) -> str:
        """The version that `call` published or activated, given when no reader is served the one before.

        The answer to a repeated call may name a version that is not active any more.
        """

        async def publish() -> str:
            try:
                version = await call()
            except BaseException as error:
                if not _is_refusal(error):
                    await self._pricing.published(None)
                raise
            await self._pricing.published(version if is_first_answer else None)
            return version

        return await self._to_the_end(publish())

    async def _answered(
        self,
        account: str,
        call: Callable[[], Awaitable[Result]],
        keyed: KeyedCall[Result] | None,
        *,
        team_id: str | None = None,
    ) -> Result:
        """The answer that the same call got before; else that of `call`, which is kept.

        With `team_id` only while there is that team: nothing is answered any more for one that was deleted.
        """
        if keyed is not None:
            reply = await self._replies.recall(keyed)
            if reply is not None and (team_id is None or await self._has_team(team_id)):
                self.counters.replies += 1
                return reply
        return await self._written([account], call, keyed=keyed)

    async def _admitted(
        self, result: type[Result], asked: Asked | None, call: Callable[[], Awaitable[Result]]
    ) -> Result:
        """The answer of `call`, which asks for credits; a refusal that is still good is given without it."""
        if asked is None or self._refusals is None:
            return await call()
        refusal, watched = await self._refusals.look(asked)
        if refusal is None:
            async with self._refusals.asking(asked) as asked_just_now:
                if asked_just_now:
                    refusal, watched = await self._refusals.look(asked)
                if refusal is None:
                    return await self._ask(asked, watched, call)
        details = RefusalDetails.model_validate(refusal.details)
        return result(error=refusal.code, message=refusal.message, details=details)

    async def _ask(self, asked: Asked, watched: Watched | None, call: Callable[[], Awaitable[Result]]) -> Result:
        assert self._refusals is not None
        answer = await call()
        refused = answer.error == "insufficient_credits"
        self._refusals.note(asked, refused=refused)
        if refused and watched is not None:
            await self._refusals.keep(
                watched,
                answer.details,
                available=lambda: self.get_available(asked.user_id, team_id=asked.team_id),
                has_no_caps=lambda: self._has_no_caps(asked.user_id, asked.team_id),
            )
        return answer

    def _asked(
        self,
        verb: Literal["reserve", "charge"],
        user_id: str,
        team_id: str | None,
        amount: int,
        *,
        key: str | None,
        notes: tuple[Metadata, UsageMetrics | None],
        texts: tuple[str | None, ...] = (),
        terms: tuple[object, ...],
    ) -> Asked | None:
        """A call that asks for credits, where a refusal may be kept for it: nobody can have accepted it before.

        `terms` is all that makes one such call be refused where another is not; `notes` and `texts` need only have
        their form. It is the use of a fresh key.
        """
        is_fresh_call = is_fresh(key)
        if self._refusals is None or not is_fresh_call or not is_well_formed(amount, *notes, key, *texts):
            return None
        return Asked(
            account=self._keys.payer(user_id, team_id),
            acting=None if team_id is None else self._keys.user(user_id),
            user_id=user_id,
            team_id=team_id,
            field=f"x:{digest(verb, user_id, *terms)}",
            amount=amount,
        )

    async def _has_no_caps(self, user_id: str, team_id: str | None) -> bool:
        """Whether neither the user nor, in a team, the member has a cap, which would be looked at before funds."""

        async def of_user() -> NoCaps:
            return NoCaps(holds=not await self._inner.list_spend_caps(user_id))

        async def of_member() -> NoCaps:
            members = await self._inner.get_team_members(team_id or "")
            return NoCaps(holds=any(each.user_id == user_id and each.spend_cap is None for each in members))

        if team_id is None:
            return (await self._cache.read(NO_CAPS, self._keys.user(user_id), of_user)).holds
        kind = replace(NO_CAPS, field=f"{NO_CAPS.field}:{digest(user_id)}")
        return (await self._cache.read(kind, self._keys.team(team_id), of_member)).holds

    def _keyed(
        self,
        reply: type[Result],
        operation: Literal["add", "charge", "deduct", "refund"],
        account: str | None,
        key: str | None,
        given: Mapping[str, Any],
        *,
        scope: str = "",
    ) -> KeyedCall[Result] | None:
        """The call as one whose reply is kept; `None` without a key of the caller's own."""
        if account is None or not isinstance(key, str) or isinstance(key, FreshKey):
            return None
        return KeyedCall.of(reply, operation, account, key, given, scope=scope)

    async def _has_team(self, team_id: str) -> bool:
        try:
            await self.get_available(team_id, team_id=team_id)  # Of a team anybody may ask.
        except (CreditError, StoreError):
            return False
        return True

    async def _to_the_end(self, work: Coroutine[Any, Any, Value]) -> Value:
        """The result of `work`, which goes on though its waiter is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        # Not asyncio.shield, which newer Pythons let report the exception of a task that nobody waits for any more.
        await asyncio.wait((task,))
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # Its caller is told, if he is still there.


def _is_refusal(error: BaseException) -> bool:
    """Whether nothing was written. Of a call that the store could not answer, that is not known."""
    return isinstance(error, DuctoError) and (not isinstance(error, StoreError) or isinstance(error, NotSupportedError))


def _check_settings(ttl_seconds: float, prefix: str, reply_ttl_seconds: int, clock: Callable[[], datetime]) -> None:
    if not ttl_seconds >= 0.1:
        raise ConfigError(f"ttl_seconds must be at least 0.1, not {ttl_seconds!r}.")
    if not reply_ttl_seconds >= 1:
        raise ConfigError(f"reply_ttl_seconds must be at least 1, not {reply_ttl_seconds!r}.")
    if not prefix or not prefix.isascii() or not prefix.isprintable() or "{" in prefix or "}" in prefix:
        raise ConfigError("prefix must be some printable ASCII characters without braces.")
    if clock().tzinfo is None:
        raise ConfigError("The clock of a RedisCacheStore must return aware datetimes, e.g. datetime.now(UTC).")
