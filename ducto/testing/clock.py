"""A clock that only moves when it is told to."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Call it for the time, as aware UTC; `advance` and `set` move it. Safe under threads.

    It may be set back as well, because a store has to stand a clock that steps backwards.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._now = _as_utc(start)

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> datetime:
        """Move by `seconds`, back if negative; the new time."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            return self._now

    def set(self, now: datetime) -> None:
        """Jump to `now`. `ValueError` if it has no time zone."""
        moved = _as_utc(now)
        with self._lock:
            self._now = moved


def _as_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("A clock needs an aware datetime, for example datetime(2026, 1, 1, tzinfo=UTC).")
    return moment.astimezone(UTC)
