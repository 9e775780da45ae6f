"""Gives up on an app that does not answer, or falls silent, by cancelling it from a timer."""

from __future__ import annotations

import asyncio

__all__ = ["Watchdog"]


class Watchdog:
    """Watches the task that makes it. `note` each sign of life; `stop` at the end.

    A sign of life costs a clock reading: the timer looks when it fires how long the silence was, and is set anew.
    """

    __slots__ = ("_begun", "_first_byte_seconds", "_idle_seconds", "_last", "_loop", "_task", "_timer", "expired")

    def __init__(self, *, first_byte_seconds: float | None, idle_seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._first_byte_seconds = first_byte_seconds
        self._idle_seconds = idle_seconds
        self._last = self._loop.time()
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None
        #: It was this watchdog who cancelled the task.
        self.expired: bool = False
        if first_byte_seconds is not None:
            # Early enough for the silence after the first byte as well, which then needs no timer of its own.
            first_look = min(first_byte_seconds, idle_seconds or first_byte_seconds)
            self._timer = self._loop.call_at(self._last + first_look, self._look)

    def begin(self) -> None:
        """The answer has begun: from now on silence is what counts."""
        self._begun = True
        self._last = self._loop.time()
        due = self._due()
        if self._timer is not None and (due is None or self._timer.when() > due):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due is not None:
            self._timer = self._loop.call_at(due, self._look)

    def note(self) -> None:
        """A part of the answer came."""
        self._last = self._loop.time()

    def stop(self) -> None:
        """End the watch. Harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def accept_cancellation(self) -> bool:
        """Was the cancellation that just arrived ours, and ours alone? It is then undone."""
        if not self.expired or self._task is None:
            return False
        return self._task.uncancel() == 0

    def _due(self) -> float | None:
        """When the silence will have been too long, by what is known now."""
        allowed = self._idle_seconds if self._begun else self._first_byte_seconds
        return None if allowed is None else self._last + allowed

    def _look(self) -> None:
        self._timer = None
        due = self._due()
        if due is None:
            return
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self.expired = True
        if self._task is not None:
            self._task.cancel("no answer in time")
