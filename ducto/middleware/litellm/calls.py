"""The calls that are under way in this process, and how each of them ends: charged or released, once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from ducto.errors import DuctoError, StoreError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall, MissingUsage
from ducto.middleware.admitting import ReadRequest
from ducto.middleware.billing import AnswerFacts, Bill, bill_for
from ducto.middleware.closing import close_books
from ducto.middleware.litellm.options import CacheHits, PriceSource
from ducto.middleware.litellm.pricing import credits_of, first_priced
from ducto.middleware.litellm.serving import Served, cost_of, dollars
from ducto.middleware.providers import UsageReading
from ducto.models import DeductionResult
from ducto.usage import UsageMetrics

__all__ = ["MARK", "CallBook", "ProxiedCall", "marks_in"]

logger: logging.Logger = logging.getLogger("ducto.litellm")

#: Where a call's id is kept in its metadata.
MARK = "ducto"

#: A stream that ended without its usage waits so long for LiteLLM to tell it.
LOGGED_WAIT_SECONDS = 1.0

#: After the request of a call is over, LiteLLM has so long to say how it ended.
GRACE_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class ProxiedCall:
    """A call whose hold is made."""

    metered: MeteredCall
    request: ReadRequest
    #: The hash of the key that made it.
    key_hash: str | None
    #: It was reserved for under the public name that the client asked for, so it is charged under it too.
    by_public_name: bool
    #: It went on its way to a provider.
    sent: bool = False
    #: Its stream is being passed on, so that its end will be seen.
    streaming: bool = False
    #: While it streams: what LiteLLM's success event says that it used.
    logged: asyncio.Future[UsageReading] | None = None
    #: What a deployment has answered, though it is not known yet that the call succeeded.
    answered: tuple[AnswerFacts, Served] | None = None
    #: Its request has been answered, so no hook will see its end any more but the success event.
    request_over: bool = False
    #: Its end has begun.
    closing: bool = False
    #: What it is charged, once that is decided.
    charge: tuple[UsageMetrics | int | None, bool] | None = None
    #: By which it is found again. Unlike the id of a reservation nobody can guess it, so no client can send it.
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    async def usage_logged(self) -> UsageReading | None:
        """What LiteLLM says that the stream used; `None` if it does not say so soon."""
        if self.logged is None:
            return None
        try:
            async with asyncio.timeout(LOGGED_WAIT_SECONDS):
                return await self.logged
        except TimeoutError:
            return None

    @property
    def reservation_id(self) -> str:
        return self.metered.admission.reservation_id


class CallBook:
    """All calls under way. To be used on one event loop."""

    def __init__(
        self,
        manager: CreditManager,
        *,
        price: PriceSource,
        cache_hits: CacheHits,
        missing_usage: MissingUsage | None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._manager = manager
        self._price = price
        self._cache_hits = cache_hits
        self._missing_usage = missing_usage
        self._grace_seconds = grace_seconds
        self._calls: dict[str, ProxiedCall] = {}
        self._by_task: WeakKeyDictionary[asyncio.Task[Any], ProxiedCall] = WeakKeyDictionary()

    def add(self, call: ProxiedCall) -> None:
        """Begin to follow a call, whose request is what the current task works at."""
        self._calls[call.id] = call
        task = asyncio.current_task()
        if task is not None:
            self._by_task[task] = call
            call_id = call.id
            task.add_done_callback(lambda _: self._request_over(call_id))

    async def forget_earlier(self) -> None:
        """Release the hold that this request made before, if the proxy admits it anew, for another model."""
        task = asyncio.current_task()
        earlier = self._by_task.get(task) if task is not None else None
        if earlier is not None and not (earlier.sent or earlier.streaming or earlier.closing):
            await self.release(earlier)

    def find(self, *places: object, key_hash: str | None) -> ProxiedCall | None:
        """The call that one of `places` (data of a request) is marked with.

        What a mark says is believed only if it is the id of a call under way that the same key made: `None` is also
        for a call that has ended.
        """
        for place in places:
            for call_id in marks_in(place):
                call = self._calls.get(call_id)
                if call is not None and call.key_hash == key_hash:
                    return call
        return None

    async def charge(self, call: ProxiedCall, facts: AnswerFacts, served: Served) -> None:
        """End a call whose answer is there, or as much of it as there will be. Never raises; once only."""
        if call.closing:
            return
        call.closing = True
        bill = bill_for(facts, call.request, missing_usage=self._missing_usage or self._manager.missing_usage)
        if served.cache_hit and self._cache_hits == "free":
            bill = Bill()
        if facts.reading is not None and facts.reading.problems:
            logger.warning("Usage of reservation %s: %s", call.reservation_id, "; ".join(facts.reading.problems))

        async def settle(actual: UsageMetrics | int | None, estimated: bool) -> DeductionResult:
            if isinstance(actual, UsageMetrics):
                actual = self._as_served(call, actual, served)
            call.charge = actual, estimated
            return await call.metered.settle(actual, estimated=estimated)

        result = await close_books(call.metered, bill, settle=settle)
        if result is not None or call.charge is None:
            self._calls.pop(call.id, None)

    async def release(self, call: ProxiedCall) -> None:
        """End a call that finally failed; one that a provider had answered all the same is charged. Never raises."""
        if call.closing or call.streaming:
            return
        if call.answered is not None:
            await self.charge(call, *call.answered)
            return
        call.closing = True
        metered = call.metered
        await close_books(metered, Bill(), settle=lambda actual, estimated: metered.settle(actual, estimated=estimated))
        self._calls.pop(call.id, None)

    async def confirm(self, call: ProxiedCall) -> None:
        """Charge again what could not be booked at once; the reservation is the key, so it is charged once."""
        if call.charge is None:
            return
        try:
            await self._settled_again(call, *call.charge)
        except DuctoError as error:
            logger.warning("Reservation %s could not be charged: %s", call.reservation_id, error)
            return
        self._calls.pop(call.id, None)

    async def _settled_again(self, call: ProxiedCall, actual: UsageMetrics | int | None, estimated: bool) -> None:
        try:
            await call.metered.settle()
        except StoreError:
            if actual is None:
                raise
            terms = call.metered.terms
            await self._manager.deduct(
                terms.user_id, actual, reservation_id=call.reservation_id, team_id=terms.team_id, estimated=estimated
            )

    def _as_served(self, call: ProxiedCall, usage: UsageMetrics, served: Served) -> UsageMetrics | int:
        """`usage` under the name by which it is priced, or the credits for what LiteLLM says that it cost."""
        engine = call.metered.admission.engine
        if engine is None:
            return usage
        if self._price == "response_cost":
            cost = dollars(served.cost_usd)
            if cost is None and served.models:
                cost = dollars(next(filter(None, (cost_of(name, usage) for name in served.models)), None))
            if cost is not None:
                return credits_of(engine, cost)
            logger.warning("LiteLLM knows no cost for reservation %s; it is priced by its tokens.", call.reservation_id)
        name: str | None = None
        if served.fallback_group is not None:
            name = first_priced(engine, (served.fallback_group, *served.models))
            if name is None:
                logger.warning("The fallback %r has no price; its call is priced as asked for.", served.fallback_group)
        elif not call.by_public_name:
            name = first_priced(engine, served.models)
        return usage if name is None else usage.model_copy(update={"model": name})

    def _request_over(self, call_id: str) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.request_over = True
            asyncio.get_running_loop().call_later(self._grace_seconds, self._overdue, call_id)

    def _overdue(self, call_id: str) -> None:
        call = self._calls.get(call_id)
        if call is None:
            return
        if call.streaming:
            self._request_over(call_id)
            return
        self._manager.supervise(lambda: self._end_overdue(call))

    async def _end_overdue(self, call: ProxiedCall) -> None:
        """End a call of which LiteLLM said nothing: as answered or missing if it was sent, else as failed."""
        if call.closing:
            await self.confirm(call)
        elif call.answered is not None or not call.sent:
            await self.release(call)
        else:
            logger.warning("LiteLLM did not say how the call of %s ended; it is charged.", call.reservation_id)
            await self.charge(call, AnswerFacts(reading=None, complete=True), Served())
        self._calls.pop(call.id, None)


def marks_in(place: object) -> Iterator[str]:
    """What may be ids, in a request's data: with ours there may be what a client sent."""
    if not isinstance(place, Mapping):
        return
    for holder in (place.get("litellm_metadata"), place.get("metadata")):
        mark = holder.get(MARK) if isinstance(holder, Mapping) else None
        call_id = mark.get("call") if isinstance(mark, Mapping) else None
        if isinstance(call_id, str):
            yield call_id
