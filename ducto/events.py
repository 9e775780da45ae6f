"""What happened, as values, and the emitter that hands them to handlers without ever hurting a call.

Names follow the verbs: the verb `reserve` emits `credits.reserved`; those of the journal are about its files. A
replay emits nothing, because nothing happened. Delivery is in this process and best effort; what must not be missed is
read again from the store, in order and with stable ids, by `list_events`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args
from uuid import uuid4

from ducto.errors import ConfigError

__all__ = ["EVENT_NAMES", "Event", "EventEmitter", "EventHandler", "EventName"]

logger: logging.Logger = logging.getLogger("ducto.events")

EventName = Literal[
    "credits.reserved",  # a hold was made
    "credits.deducted",  # a reservation was settled
    "credits.charged",  # credits were charged without a reservation, to a user or a team
    "credits.released",  # a hold was freed without a charge
    "credits.renewed",  # a hold was prolonged
    "credits.added",  # credits came in
    "credits.adjusted",  # a balance was corrected by hand
    "credits.refunded",  # a spend was returned
    "credits.transferred",  # credits moved between two users
    "credits.expired",  # a sweep booked the expiry of granted credits (totals, no single user)
    "credits.reservation_expired",  # the reaper ended a hold that nobody settled
    "credits.low_balance",  # a movement took the balance from at least a threshold to below it
    "credits.denied",  # a reserve or a charge was refused; `data["code"]` says why
    "credits.cap_reached",  # a denying cap refused (besides credits.denied)
    "credits.cap_warning",  # a cap with action `warn` was exceeded
    "credits.cap_notice",  # a cap with action `notify` was exceeded
    "credits.overage",  # a call cost more than was reserved
    "credits.late",  # a call was settled after its reservation had expired
    "credits.suspect",  # a call cost more than `max_settle` and was cut there
    "credits.plan_changed",  # a user was given another plan
    "credits.pricing_published",  # a new pricing config is active
    "credits.pricing_activated",  # an earlier pricing config is active again
    "credits.deduct_failed",  # a finished call could not be charged; `data` has all that charging by hand needs
    "credits.settle_deferred",  # a finished call is charged from the journal, when the store answers again
    "credits.admitted_offline",  # a call was admitted while the store did not answer, to be charged later
    "journal.nearly_full",  # four fifths of what the journal may hold are outstanding
    "journal.failing",  # the journal cannot be written: calls are settled without it
    "journal.corrupt",  # records that another process left are damaged, and were put aside
]
EVENT_NAMES: frozenset[str] = frozenset(get_args(EventName))


def _new_id() -> str:
    return uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. `data` is JSON: the fields of the result that the verb answered with."""

    name: EventName
    user_id: str | None = None
    team_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    id: str = field(default_factory=_new_id)
    #: By the clock of this process, aware, UTC.
    occurred_at: datetime = field(default_factory=_now)


EventHandler = Callable[[Event], Awaitable[None] | None]


class _Subscription:
    """A handler with its own bounded queue and its own worker, so that a slow one delays nobody else."""

    def __init__(self, name: str, handler: EventHandler, *, queue_size: int) -> None:
        self.name = name
        self._handler = handler
        self._queue: deque[Event] = deque()
        self._queue_size = queue_size
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dropped = 0

    def offer(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        if len(self._queue) >= self._queue_size:
            self._queue.popleft()
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8 ...: a flood of drops is not a flood of lines
                logger.warning("Handler %r is too slow: %d events dropped so far.", self._handler, self.dropped)
        self._queue.append(event)
        if self._worker is None or self._worker.done() or self._loop is not loop:
            self._loop = loop
            self._worker = loop.create_task(self._work(), name=f"ducto event handler for {self.name}")

    async def _work(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            try:
                answer = self._handler(event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:
                logger.exception("Handler %r failed on %s; the call itself is not affected.", self._handler, event.name)

    def worker(self) -> asyncio.Task[None] | None:
        return self._worker if self._worker is not None and not self._worker.done() else None

    def stop(self) -> int:
        """Cancel the worker; how many events stay undelivered."""
        if self._worker is not None:
            self._worker.cancel()
        left = len(self._queue)
        self._queue.clear()
        return left


class EventEmitter:
    """Hands events to handlers. `emit` never waits, never raises for a handler, and costs nothing without
    handlers.

    A sync handler runs on the event loop, so it must be quick; one that waits should be `async def`.
    """

    def __init__(self, *, queue_size: int = 1000) -> None:
        self._queue_size = queue_size
        self._subscriptions: dict[str, list[_Subscription]] = {}

    def on(self, name: EventName | Literal["*"], handler: EventHandler) -> Callable[[], None]:
        """Call `handler` for each event `name` (`"*"`: for all), in order. Returns the function that ends it.

        Raises `ConfigError` for a name that is no event.
        """
        if name != "*" and name not in EVENT_NAMES:
            raise ConfigError(f"There is no event {name!r}; use '*' or one of {', '.join(sorted(EVENT_NAMES))}.")
        subscription = _Subscription(name, handler, queue_size=self._queue_size)
        self._subscriptions.setdefault(name, []).append(subscription)

        def unsubscribe() -> None:
            listed = self._subscriptions.get(name, [])
            if subscription in listed:
                listed.remove(subscription)
                if not listed:
                    del self._subscriptions[name]

        return unsubscribe

    @property
    def dropped(self) -> int:
        """How many events the current handlers lost because they were too slow."""
        return sum(one.dropped for listed in self._subscriptions.values() for one in listed)

    @property
    def listening(self) -> bool:
        """Is there any handler?"""
        return bool(self._subscriptions)

    def wants(self, name: EventName) -> bool:
        """Does any handler listen? Asked before an event is built."""
        return bool(self._subscriptions) and (name in self._subscriptions or "*" in self._subscriptions)

    def emit(
        self,
        name: EventName,
        *,
        user_id: str | None = None,
        team_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue an event for every handler of `name`. To be called on an event loop."""
        if not self.wants(name):
            return
        event = Event(name=name, user_id=user_id, team_id=team_id, data=MappingProxyType(dict(data or {})))
        loop = asyncio.get_running_loop()
        for listed in (self._subscriptions.get(name, ()), self._subscriptions.get("*", ())):
            for subscription in listed:
                subscription.offer(event, loop)

    async def drain(self, *, seconds: float) -> int:
        """Wait up to `seconds` until all queued events are handled, then stop the rest; how many were not
        handled.
        """
        subscriptions = [one for listed in self._subscriptions.values() for one in listed]
        loop = asyncio.get_running_loop()
        workers = [one.worker() for one in subscriptions]
        running = {task for task in workers if task is not None and task.get_loop() is loop}
        undelivered = 0
        if running:
            _, pending = await asyncio.wait(running, timeout=seconds)
            undelivered = len(pending)
        undelivered += sum(one.stop() for one in subscriptions)
        if undelivered:
            logger.warning("%d events were not handled within %s s.", undelivered, seconds)
        return undelivered
