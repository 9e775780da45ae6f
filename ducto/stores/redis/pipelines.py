"""Pipelines to one Redis server: formed by natural batching, kept within a time budget, stopped by a circuit breaker.

A lone command goes at once, alone. What is handed in while pipelines are in flight travels together in the next one.

Time is watched by one lazy timer, not by one for each command. When no answer at all came during a whole budget, or a
connection broke, the circuit opens: everything that waits fails, and so does at once whatever is handed in, until a
background task has connected and been answered. No caller is ever used as the probe.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import MovedError, NoScriptError, ResponseError

from ducto.stores.redis.faults import LinkCounters, RedisUnavailable, ScriptMissing
from ducto.stores.redis.wire import packed

__all__ = ["RedisPipelines"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

_MAX_COMMANDS = 256
#: A timer that is later than this was held up by this process: Redis is not to blame, its answer may be here already.
_HELD_UP_SECONDS = 0.005
_GRACE_SECONDS = 0.01
_CLOSED = "The link to Redis was closed."


class _Entry:
    """A command that waits for its answer until `deadline`, on the loop's clock."""

    __slots__ = ("data", "deadline", "future")

    def __init__(self, data: bytes, future: asyncio.Future[Any], deadline: float) -> None:
        self.data = data
        self.future = future
        self.deadline = deadline


class _Flight:
    """A pipeline on its way: its commands, how many were answered, and since when no answer came."""

    __slots__ = ("answered", "entries", "excused", "seen", "since", "task")

    def __init__(self, entries: list[_Entry], since: float) -> None:
        self.entries = entries
        self.answered = 0
        self.seen = 0
        self.since = since
        self.excused = False
        self.task: asyncio.Task[None] | None = None


class RedisPipelines:
    """The pipelines to one server.

    `new_connection` makes a connection of redis-py that is not yet connected; it is ours alone. `lanes` pipelines may
    be in flight at once, each on its own connection, so between commands that do not await each other there is no
    order. `lost` is called when keys may be found elsewhere now: one has moved, or the circuit opens.
    `connect_seconds` bounds connecting, which goes on in the background when its first callers have given up.
    """

    def __init__(
        self,
        new_connection: Callable[[], Any],
        counters: LinkCounters,
        *,
        budget_seconds: float,
        open_seconds: float,
        connect_seconds: float,
        lanes: int,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._new_connection = new_connection
        self._counters = counters
        self._budget = budget_seconds
        self._open_seconds = open_seconds
        self._connect_seconds = connect_seconds
        self._lanes = lanes
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Entry] = deque()
        self._start_is_due = False
        self._flights: set[_Flight] = set()
        self._idle: list[Any] = []
        self._opening: asyncio.Task[Any] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        """Whether the circuit is closed."""
        return self._recovery is None and not self._closed

    def submit(self, data: bytes, deadline: float) -> asyncio.Future[Any]:
        """Hand in a packed command; the future gets the answer. Raises `RedisUnavailable` where the circuit is open."""
        if self._recovery is not None or self._closed:
            self._counters.skipped += 1
            raise RedisUnavailable("Redis did not answer a moment ago and is left alone for now.")
        self._counters.commands += 1
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append(_Entry(data, future, deadline))
        if not self._start_is_due and len(self._flights) < self._lanes:
            # At the end of this turn of the loop, so that all who ask in this turn share a pipeline.
            self._start_is_due = True
            self._loop.call_soon(self._start)
        if self._timer is None or deadline < self._timer.when():
            self._look_at(deadline)
        return future

    async def aclose(self) -> None:
        """Fail what waits and close the connections. Harmless when repeated."""
        self._closed = True
        self._fail(self._queue, _CLOSED)
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        opening, self._opening = self._opening, None
        tasks = [task for task in (self._recovery, opening, *(each.task for each in self._flights)) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if opening is not None and not opening.cancelled() and opening.exception() is None:
            self._idle.append(opening.result())  # It was up already, and nobody had taken it.
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    # Sending

    def _start(self) -> None:
        self._start_is_due = False
        while len(self._flights) < self._lanes:
            batch = self._next()
            if not batch:
                return
            flight = _Flight(batch, self._loop.time())
            self._flights.add(flight)
            # A pipeline belongs to many callers: it runs in nobody's context.
            flight.task = self._loop.create_task(self._fly(flight), context=contextvars.Context())

    def _next(self) -> list[_Entry]:
        """The next commands whose callers still wait."""
        batch: list[_Entry] = []
        while self._queue and len(batch) < _MAX_COMMANDS:
            entry = self._queue.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch

    async def _fly(self, flight: _Flight) -> None:
        """Send the flight's commands and, on the same connection, whatever has queued up meanwhile."""
        connection = None
        try:
            connection = await self._connected()
            while flight.entries:
                await self._exchange(connection, flight)
                flight.entries = self._next()
                flight.answered = flight.seen = 0
                flight.since = self._loop.time()
            self._idle.append(connection)
            connection = None
        except Exception as error:  # noqa: BLE001 - whatever the driver or the network raised, Redis did not serve us
            self._trip(flight, f"Redis could not be asked ({type(error).__name__}).")
        finally:
            self._flights.discard(flight)
            # Also after a cancellation: nobody may be left waiting, and an answer that is still under way must never
            # be read as that of another command.
            self._fail(flight.entries, _CLOSED)
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def _exchange(self, connection: Any, flight: _Flight) -> None:
        self._counters.pipelines += 1
        entries = flight.entries
        await connection.send_packed_command([entry.data for entry in entries], check_health=False)
        for entry in entries:
            try:
                answer = await connection.read_response(disable_decoding=True)
            except ResponseError as error:
                self._refuse(entry, error)
            else:
                if not entry.future.done():
                    entry.future.set_result(answer)
            flight.answered += 1

    def _refuse(self, entry: _Entry, error: ResponseError) -> None:
        """The server's refusal of one command, which is its caller's alone."""
        if isinstance(error, MovedError):
            self._lost()
        if entry.future.done():
            return
        message = f"Redis refused the command ({type(error).__name__})."
        if isinstance(error, NoScriptError):
            entry.future.set_exception(ScriptMissing(message))  # Which is repaired, and so no failure yet.
        else:
            self._fail([entry], message)

    # Connecting

    async def _connected(self) -> Any:
        """A connection that is up, or the opening of one, which outlives whoever waits for it."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_connected and not await _stale(connection):
                return connection
            await connection.disconnect(nowait=True)
        if self._opening is None:
            self._opening = self._loop.create_task(self._open(), context=contextvars.Context())
        opening = self._opening
        await asyncio.wait([opening])
        mine = self._opening is opening
        if mine:
            self._opening = None
        connection = opening.result()
        return connection if mine else await self._connected()  # Else another lane was first to take it.

    async def _open(self) -> Any:
        connection = self._new_connection()
        try:
            async with asyncio.timeout(self._connect_seconds):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    # Time

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look, when)

    def _look(self, due: float) -> None:
        """The timer: fail what is overdue, open the circuit where Redis said nothing for a whole budget."""
        self._timer = None
        now = self._loop.time()
        held_up = now - due > _HELD_UP_SECONDS
        next_look = now + self._budget
        for flight in list(self._flights):
            if held_up and not flight.excused:
                flight.excused = True
                next_look = min(next_look, now + _GRACE_SECONDS)
                continue
            flight.excused = False
            if flight.answered != flight.seen:
                flight.seen, flight.since = flight.answered, now
            elif now - flight.since >= self._budget:
                self._trip(flight, self._too_late())
                continue
            next_look = min(next_look, flight.since + self._budget, self._fail_overdue(flight.entries, now))
        next_look = min(next_look, self._fail_overdue(self._queue, now))
        if self._flights or self._queue:
            self._look_at(next_look)

    def _fail_overdue(self, entries: Iterable[_Entry], now: float) -> float:
        """Fail those whose time is up; returns when the next one's is."""
        self._fail([entry for entry in entries if entry.deadline <= now], self._too_late())
        return min((entry.deadline for entry in entries if entry.deadline > now), default=math.inf)

    def _too_late(self) -> str:
        return f"Redis did not answer within {round(self._budget * 1000)} ms."

    def _fail(self, entries: Iterable[_Entry], message: str) -> None:
        for entry in entries:
            if not entry.future.done():
                self._counters.failures += 1
                entry.future.set_exception(RedisUnavailable(message))

    # The circuit

    def _trip(self, flight: _Flight, message: str) -> None:
        """Open the circuit, fail the flight and all that waits. Other flights end as they may."""
        self._fail(flight.entries, message)
        self._fail(self._queue, message)
        self._queue.clear()
        flight.entries = []
        self._flights.discard(flight)
        if flight.task is not None and flight.task is not asyncio.current_task():
            flight.task.cancel()
        if self._recovery is None and not self._closed:
            logger.warning("%s Going on without Redis until it answers again.", message)
            self._recovery = self._loop.create_task(self._recover(), context=contextvars.Context())
            self._lost()

    async def _recover(self) -> None:
        """Ask until there is an answer, then close the circuit. A connection that is being opened is waited for."""
        while True:
            if self._opening is None:
                await asyncio.sleep(self._open_seconds)
            try:
                connection = await self._connected()
                try:
                    async with asyncio.timeout(self._budget):
                        await connection.send_packed_command(packed(["PING"]), check_health=False)
                        await connection.read_response(disable_decoding=True)
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
            except Exception as error:  # noqa: BLE001 - whatever it is, Redis is not there yet
                logger.debug("Redis is still not there (%s).", type(error).__name__)
                continue
            self._idle.append(connection)
            self._recovery = None
            logger.info("Redis answers again.")
            return


async def _stale(connection: Any) -> bool:
    """Whether something waits to be read on an idle connection, which can only be its end."""
    look = getattr(connection, "can_read", None) or connection.can_read_destructive  # The name before redis-py 8.
    try:
        return bool(await look())
    except Exception:  # noqa: BLE001 - a connection that cannot say is not used
        return True
