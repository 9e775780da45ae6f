"""Calendar windows in UTC: hours, days and months."""

from __future__ import annotations

from datetime import datetime, timedelta

from ducto.models import CapType

__all__ = ["month_of", "month_window", "window_of"]


def month_of(instant: datetime) -> int:
    """The calendar month as one number, so that consecutive months are consecutive numbers."""
    return instant.year * 12 + instant.month - 1


def month_window(instant: datetime) -> tuple[datetime, datetime]:
    """First instant of the month, and of the month after it."""
    start = instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def window_of(cap_type: CapType, instant: datetime) -> tuple[datetime, datetime]:
    """The half-open window of `cap_type` that `instant` falls in."""
    if cap_type == "monthly":
        return month_window(instant)
    hour = instant.replace(minute=0, second=0, microsecond=0)
    if cap_type == "hourly":
        return hour, hour + _HOUR
    day = hour.replace(hour=0)
    return day, day + _DAY
