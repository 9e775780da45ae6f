"""Renewal of the holds of long calls, by one task for all calls of a manager."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ducto.errors import DuctoError, NotSupportedError, StoreError

__all__ = ["Heartbeat"]

logger: logging.Logger = logging.getLogger("ducto.heartbeat")

#: Renewals in flight at once.
MAX_PARALLEL = 32
#: A reservation lives at most a day after it began; the store refuses to renew it beyond.
MAX_LIFE_SECONDS = 86_400.0

Renew = Callable[[str, str, int], Awaitable[object]]


@dataclass(slots=True, eq=False)
class _Beat:
    user_id: str
    reservation_id: str
    ttl_seconds: int
    started: float
    due: float
    #: What it waits from one renewal to the next; names the queue that it is in.
    pause: float
    ended: bool = False


class Heartbeat:
    """Renews each hold at a third of its time to live, from `add` until the function that `add` returned is
    called.

    Beats with the same pause are due in the order in which they were put in, so a queue for each pause is
    enough: to add and to remove a call costs the same however many run.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, renew: Renew) -> None:
        self._loop = loop
        self._renew = renew
        self._queues: dict[float, OrderedDict[_Beat, None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._sleeping_until = float("inf")
        self._supported = True

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, user_id: str, reservation_id: str, *, ttl_seconds: int) -> Callable[[], None]:
        """Renew this hold from now on. The returned function ends that and may be called again."""
        now = self._loop.time()
        pause = ttl_seconds / 3
        beat = _Beat(user_id, reservation_id, ttl_seconds, now, now + pause, pause)
        if self._supported:
            self._put(beat)
        return lambda: self._remove(beat)

    async def aclose(self) -> None:
        """Stop renewing."""
        self._queues.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    def _put(self, beat: _Beat) -> None:
        self._queues.setdefault(beat.pause, OrderedDict())[beat] = None
        if beat.due < self._sleeping_until:
            self._wake.set()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run(), name="ducto heartbeat")

    def _remove(self, beat: _Beat) -> None:
        # A beat that is being renewed just now has left its queue, and this keeps it from coming back.
        beat.ended = True
        queue = self._queues.get(beat.pause)
        if queue is not None:
            queue.pop(beat, None)
            if not queue:
                del self._queues[beat.pause]

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._sleeping_until = min((next(iter(queue)).due for queue in self._queues.values()), default=float("inf"))
            wait_seconds = self._sleeping_until - self._loop.time()
            if wait_seconds > 0:
                timeout = wait_seconds if wait_seconds != float("inf") else None
                try:
                    await asyncio.wait_for(self._wake.wait(), timeout)
                except TimeoutError:
                    pass
                else:
                    continue
            await self._renew_due()

    def _take_due(self) -> list[_Beat]:
        now = self._loop.time()
        due: list[_Beat] = []
        for pause, queue in list(self._queues.items()):
            while queue and len(due) < MAX_PARALLEL and next(iter(queue)).due <= now:
                due.append(queue.popitem(last=False)[0])
            if not queue:
                del self._queues[pause]
        return due

    async def _renew_due(self) -> None:
        await asyncio.gather(*(self._beat(beat) for beat in self._take_due()))

    async def _beat(self, beat: _Beat) -> None:
        pause = beat.ttl_seconds / 3
        try:
            # One that hangs is given up soon, because others wait for it.
            async with asyncio.timeout(beat.ttl_seconds / 6):
                await self._renew(beat.user_id, beat.reservation_id, beat.ttl_seconds)
        except NotSupportedError as error:
            self._supported = False
            logger.warning("Holds are not renewed, so a call longer than its hold settles late: %s", error)
            return
        except (StoreError, TimeoutError) as error:
            if isinstance(error, StoreError) and not error.retryable:
                logger.warning("Reservation %s is not renewed any more: %s", beat.reservation_id, error)
                return
            pause /= 4
        except DuctoError as error:
            if not beat.ended:  # that a call which ended meanwhile cannot be renewed is no news
                logger.warning("Reservation %s is not renewed any more: %s", beat.reservation_id, error)
            return
        except Exception:
            logger.exception("Reservation %s could not be renewed and is tried again.", beat.reservation_id)
            pause /= 4
        now = self._loop.time()
        if not beat.ended and now - beat.started < MAX_LIFE_SECONDS:
            beat.pause, beat.due = pause, now + pause
            self._put(beat)
