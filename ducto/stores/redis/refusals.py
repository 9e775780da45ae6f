"""Cheap refusals: who was just refused for lack of credits is refused again without the inner store.

For the same or a larger amount, until anything is written to the account, anything of it falls due, pricing changes, or
a second has passed. Only calls that nobody can have accepted before are refused this way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from pydantic import ValidationError

from ducto import arguments
from ducto.errors import CreditError, StoreError
from ducto.ledger.admission import short_of_credits
from ducto.ledger.windows import month_window
from ducto.models import AvailableResult, Metadata, RefusalDetails
from ducto.models.base import Row
from ducto.recently_used import RecentlyUsed
from ducto.stores.redis.cache import AccountCache
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import RedisUnavailable
from ducto.stores.redis.values import is_good, milliseconds
from ducto.usage import UsageMetrics

__all__ = ["Asked", "Refusals", "Watched", "is_well_formed"]

_LONGEST_MS = 1_000
#: Calls of which it is known that they were refused a moment ago.
_REFUSED_KEPT = 10_000


class Asked(NamedTuple):
    """A call that asks for credits: the account that pays, that of the member who acts where a team pays, how much.

    `field` tells apart calls that may be refused for another reason, or with another floor.
    """

    account: str
    acting: str | None
    user_id: str
    team_id: str | None
    field: str
    amount: int


class Watched(NamedTuple):
    """What Redis knew before the inner store was asked."""

    asked: Asked
    token: str
    acting_token: str
    epoch: str
    now_ms: int
    began: float


class _Refused(Row):
    """The refusal of `amount`, for as long as it is good."""

    amount: int
    required: int
    available: int
    balance: int
    min_balance: int
    acting_token: str
    epoch: str
    now_ms: int
    until_ms: int


class Refusals:
    """Refusals in Redis. `cache` keeps them, fenced as it fences reads."""

    def __init__(self, cache: AccountCache, *, counters: CacheCounters) -> None:
        self._cache = cache
        self._counters = counters
        self._refused: RecentlyUsed[tuple[str, str], bool] = RecentlyUsed(_REFUSED_KEPT)
        self._asking: dict[tuple[str, str], asyncio.Event] = {}

    @asynccontextmanager
    async def asking(self, asked: Asked) -> AsyncIterator[bool]:
        """Around asking the inner store. True where another caller has just asked the same: look again first.

        Only where the last such call of this process was refused, so that in a storm of retries one of them asks when
        the refusal has grown old, and nobody else is ever kept waiting.
        """
        call = (asked.account, asked.field)
        before = self._asking.get(call)
        if before is not None:
            await before.wait()
            yield True
        elif self._refused.get(call) is None:
            yield False
        else:
            done = self._asking[call] = asyncio.Event()
            try:
                yield False
            finally:
                del self._asking[call]
                done.set()

    def note(self, asked: Asked, *, refused: bool) -> None:
        """What the inner store has just answered."""
        if refused:
            self._refused.put((asked.account, asked.field), True)
        else:
            self._refused.drop((asked.account, asked.field))

    async def look(self, asked: Asked) -> tuple[CreditError | None, Watched | None]:
        """The refusal that the inner store would give, or what is needed to keep the one that it may give."""
        now_ms, began = milliseconds(self._cache.now()), time.monotonic()
        try:
            epoch, (token, text) = await self._cache.with_epoch(
                self._cache.watch(asked.account, asked.field, longest_ms=_LONGEST_MS)
            )
            acting_token = ""
            if asked.acting is not None:  # The plan of the member who acts decides too.
                acting_token, _ = await self._cache.watch(asked.acting, "", longest_ms=0)
        except (RedisUnavailable, StoreError):
            self._counters.fallbacks += 1
            return None, None
        if not token or (asked.acting is not None and not acting_token):
            return None, None  # The outcome of a write is not known.
        watched = Watched(asked, token, acting_token, epoch, now_ms, began)
        refused = _decoded(text)
        if refused is None or not _holds(refused, watched):
            return None, watched
        self._counters.refusals += 1
        more = asked.amount - refused.amount
        return (
            short_of_credits(refused.required + more, refused.available, refused.balance, refused.min_balance),
            None,
        )

    async def keep(
        self,
        watched: Watched,
        details: RefusalDetails | None,
        *,
        available: Callable[[], Awaitable[AvailableResult]],
        has_no_caps: Callable[[], Awaitable[bool]],
    ) -> None:
        """Keep what the inner store has just refused, where it is sure what a larger amount would be refused with.

        It is not where caps come before funds, and where the allowance alone would have paid.
        """
        if details is None or details.required is None or details.required <= 0:
            return
        try:
            found = await available()
            if found.stable_until is None or found.available != details.available or not await has_no_caps():
                return
        except (CreditError, StoreError):
            return
        now = self._cache.now()
        until = min(found.stable_until, month_window(now)[1])  # A new month has a new allowance.
        refused = _Refused(
            amount=watched.asked.amount,
            required=details.required,
            available=found.available,
            balance=found.balance,
            min_balance=details.min_balance or 0,
            acting_token=watched.acting_token,
            epoch=watched.epoch,
            now_ms=watched.now_ms,
            until_ms=milliseconds(until),
        )
        left_ms = _LONGEST_MS - round((time.monotonic() - watched.began) * 1000)
        if left_ms > 0:
            await self._cache.keep(
                watched.asked.account,
                watched.token,
                watched.asked.field,
                json.dumps(refused.model_dump(), separators=(",", ":")),
                for_ms=left_ms,
            )


def is_well_formed(amount: object, metadata: Metadata, usage: UsageMetrics | None, *texts: str | None) -> bool:
    """Whether what differs from call to call has a form that the inner store would not refuse first. Never for 0."""
    try:
        arguments.check_amount(amount, minimum=1)
        arguments.check_metadata(metadata)
        arguments.check_usage(usage)
        for each in texts:
            arguments.check_key(each)
    except CreditError:
        return False
    return True


def _decoded(text: bytes) -> _Refused | None:
    try:
        return _Refused.model_validate_json(text) if text else None
    except ValidationError:
        return None  # Nothing that this version has written.


def _holds(refused: _Refused, watched: Watched) -> bool:
    return (
        watched.asked.amount >= refused.amount
        and watched.epoch == refused.epoch
        and watched.acting_token == refused.acting_token
        and is_good(watched.now_ms, refused.now_ms, refused.until_ms)
    )
