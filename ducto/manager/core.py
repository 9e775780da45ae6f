"""What all parts of the manager share: the store, the settings, the event loop that it works on, its life
cycle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from ducto.errors import ConfigError
from ducto.events import EventEmitter, EventHandler, EventName
from ducto.fresh_keys import new_key
from ducto.journal import SettleJournal
from ducto.manager.announcing import Announcer
from ducto.manager.heartbeat import Heartbeat
from ducto.manager.journaling import CallJournal, open_journal
from ducto.manager.live_pricing import LivePricing
from ducto.manager.maintenance import Maintenance, MaintenanceReport
from ducto.manager.observing import Observers
from ducto.manager.offline import FailOpen, OfflineCalls
from ducto.manager.portal import Portal
from ducto.manager.refusals import accepted
from ducto.manager.replaying import JournalReport, Replayer
from ducto.manager.settling import Settler
from ducto.manager.store_check import require_whole_interface
from ducto.meter import MissingUsage
from ducto.models import Outcome, OveragePolicy, RenewResult, SetupResult
from ducto.recently_used import RecentlyUsed
from ducto.retrying import BRIEF, retried
from ducto.stores.base import CreditStore
from ducto.supervisor import Supervisor, outcome

__all__ = ["ManagerCore", "ManagerSettings", "OnLoop", "key_or_new"]

logger: logging.Logger = logging.getLogger("ducto.manager")

T = TypeVar("T")
R = TypeVar("R", bound=Outcome)

#: Users of whom it is known that their signup bonus is booked.
USERS_SEEN_KEPT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSettings:
    """The options of a manager, checked once."""

    pricing_refresh_seconds: float
    plan_refresh_seconds: float
    ttl_seconds: int
    grace_seconds: int
    overage: OveragePolicy
    missing_usage: MissingUsage
    low_balance_thresholds: Sequence[int]
    maintain_every_seconds: float | None
    drain_seconds: float
    journal: SettleJournal | Path | str | None
    fail_open: FailOpen | None

    def __post_init__(self) -> None:
        for name in ("pricing_refresh_seconds", "plan_refresh_seconds", "drain_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be at least 0 seconds, not {getattr(self, name)!r}.")
        if not 1 <= self.ttl_seconds <= 86_400:
            raise ConfigError(f"ttl_seconds must be from 1 to 86400, not {self.ttl_seconds!r}.")
        if not 0 <= self.grace_seconds <= 3600:
            raise ConfigError(f"grace_seconds must be from 0 to 3600, not {self.grace_seconds!r}.")
        if self.overage not in ("debt", "clamp", "reject"):
            raise ConfigError(f"overage must be 'debt', 'clamp' or 'reject', not {self.overage!r}.")
        if self.missing_usage not in ("estimate", "reserved"):
            raise ConfigError(f"missing_usage must be 'estimate' or 'reserved', not {self.missing_usage!r}.")
        if self.maintain_every_seconds is not None and not self.maintain_every_seconds > 0:
            raise ConfigError("maintain_every_seconds must be above 0, or None for no maintenance.")


class OnLoop:
    """What belongs to one event loop: tasks, and locks that tasks wait on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        store: CreditStore,
        announcer: Announcer,
        observers: Observers,
        events: EventEmitter,
        settings: ManagerSettings,
        journal: CallJournal | None,
        renew: Callable[[str, str, int], Awaitable[object]],
    ) -> None:
        self.loop = loop
        self.supervisor: Supervisor = Supervisor(loop)
        self.settler: Settler = Settler(store, announcer, observers, journal=journal)
        self.replayer: Replayer | None = None if journal is None else Replayer(journal, self.settler.replay, events)
        self.heartbeat: Heartbeat = Heartbeat(loop, renew)
        self.pricing: LivePricing = LivePricing(
            store,
            pricing_refresh_seconds=settings.pricing_refresh_seconds,
            plan_refresh_seconds=settings.plan_refresh_seconds,
        )
        self.stop_hearing: Callable[[], None] = store.on_pricing_published(self.pricing.heard)
        self.seen: RecentlyUsed[str, bool] = RecentlyUsed(USERS_SEEN_KEPT)
        self.maintenance: asyncio.Task[None] | None = None


class ManagerCore:
    """The manager's foundation. It works on one event loop, that of its first use, and does not own its
    store.
    """

    def __init__(self, store: CreditStore, settings: ManagerSettings) -> None:
        require_whole_interface(store)
        self.store = store
        self.settings = settings
        self.events: EventEmitter = EventEmitter()
        self.observers: Observers = Observers()
        self.portal: Portal = Portal(self)
        self._announcer = Announcer(self.events, low_balance_thresholds=settings.low_balance_thresholds)
        self._maintenance = Maintenance(store, self._announcer)
        self._journal = open_journal(settings.journal, store, self.events)
        self._offline: OfflineCalls | None = None
        if settings.fail_open is not None:
            if self._journal is None:
                raise ConfigError(
                    "fail_open needs a journal, which keeps what is owed until the store answers; give journal=, or "
                    "set DUCTO_JOURNAL to a folder."
                )
            self._offline = OfflineCalls(settings.fail_open, self._journal, self._announcer)
        self._on_loop: OnLoop | None = None
        #: From the start of `aclose` nothing new is admitted; until its end, what runs may still settle.
        self._closing = False
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the manager works on, `None` before its first use."""
        return self._on_loop.loop if self._on_loop is not None else None

    def on(self, name: EventName | Literal["*"], handler: EventHandler) -> Callable[[], None]:
        """Call `handler`, sync or async, for each event `name` (`"*"`: for all). Returns the function that
        ends it.

        A handler that raises or hangs hurts neither the call nor other handlers. Raises `ConfigError` for a
        name that is no event.
        """
        return self.events.on(name, handler)

    async def setup(self, database_url: str | None = None) -> SetupResult:
        """Make the store ready and start the maintenance. Idempotent."""
        self._here()
        return await self.store.setup(database_url)

    async def maintain(self) -> MaintenanceReport:
        """End holds past their grace, expire credits that are due, forget reservations that ended 30 days
        ago.

        The manager does it by itself every `maintain_every_seconds`.
        """
        self._here()
        return await self._maintenance.run()

    async def replay_journal(self) -> JournalReport:
        """Charge now what the journal has from calls that the store did not answer for, of this process and of those
        that are not there any more. Once for each, whoever else does it.

        The manager does it by itself: at its start, and every few seconds. Without a journal there is nothing.
        """
        here = self._here()
        return JournalReport() if here.replayer is None else await here.replayer.round()

    async def aclose(self) -> None:
        """Let running settles and releases end, for at most `drain_seconds`, then events; stop everything
        else.

        What could not be charged by then is left to the journal, for the next process; without one it is announced as
        `credits.deduct_failed`. The store stays open: who opened it closes it. Harmless when repeated.
        """
        here, self._closing = self._on_loop, True
        try:
            if here is None or not here.loop.is_running():
                return
            if here.loop is asyncio.get_running_loop():
                await self._close(here)
            else:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(here), here.loop))
        finally:
            self._closed = True
            self.portal.stop()
            if self._journal is not None:
                await asyncio.to_thread(self._journal.close)

    def close(self) -> None:
        """`aclose` for code that is not async. Raises `ConfigError` on a thread that runs an event loop."""
        if not self._closed and self._on_loop is not None and self._on_loop.loop.is_running():
            self.portal.call(self.aclose, instead="use `await manager.aclose()`")
        self._closing = self._closed = True
        self.portal.stop()
        if self._journal is not None:
            self._journal.close()

    async def __aenter__(self) -> Self:
        self._here()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _here(self) -> OnLoop:
        """What belongs to the running loop. Raises `ConfigError` on another live loop than the manager's."""
        loop = asyncio.get_running_loop()
        here = self._on_loop
        if here is not None and here.loop is loop and not self._closed:
            return here
        if self._closed:
            raise ConfigError("This manager is closed; make a new one.")
        if here is not None and here.loop.is_running():
            raise ConfigError(
                "This manager works on another event loop, which is still running; make one manager for each loop, "
                "or call it from a thread without a loop through `@metered` on a `def`."
            )
        return self._begin(loop)

    def _here_to_admit(self) -> OnLoop:
        """As `_here`, for what begins something new. Raises `ConfigError` also while the manager is closing."""
        if self._closing:
            raise ConfigError("This manager is closed; make a new one.")
        return self._here()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> OnLoop:
        if self._on_loop is not None:
            self._on_loop.stop_hearing()
        here = OnLoop(
            loop,
            store=self.store,
            announcer=self._announcer,
            observers=self.observers,
            events=self.events,
            settings=self.settings,
            journal=self._journal,
            renew=self._renew_hold,
        )
        self._on_loop = here
        if here.replayer is not None:
            here.replayer.start()
        every_seconds = self.settings.maintain_every_seconds
        if every_seconds is not None:
            here.maintenance = loop.create_task(self._maintenance.run_every(every_seconds), name="ducto maintenance")
        return here

    async def _close(self, here: OnLoop) -> None:
        if here.maintenance is not None:
            here.maintenance.cancel()
            await asyncio.wait((here.maintenance,))
        here.stop_hearing()
        await here.supervisor.drain(seconds=self.settings.drain_seconds)
        if here.replayer is not None:
            await here.replayer.aclose()
        await here.heartbeat.aclose()
        await here.pricing.aclose()
        await self.events.drain(seconds=self.settings.drain_seconds)

    async def _renew_hold(self, user_id: str, reservation_id: str, ttl_seconds: int) -> RenewResult:
        result = await self.store.renew_reservation(user_id, reservation_id, ttl_seconds=ttl_seconds)
        accepted(result, "renew")
        self._announcer.happened("credits.renewed", result, user_id=user_id)
        return result

    async def _written(self, verb: str, call: Callable[[], Awaitable[R]]) -> R:
        """The result of a writing verb with a key, retried briefly. Raises the typed refusal."""
        self._here()
        return accepted(await retried(call, policy=BRIEF), verb)

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a reading or naturally idempotent verb, retried briefly."""
        self._here()
        return await retried(call, policy=BRIEF)

    async def _supervised(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, which goes on though its caller is cancelled."""

        async def run() -> T:
            return await work()

        return await outcome(self._here().supervisor.spawn(run))


def key_or_new(idempotency_key: str | None) -> str:
    """The caller's key, or a fresh one, so that a retry inside the manager never happens twice."""
    return idempotency_key if idempotency_key is not None else new_key()
