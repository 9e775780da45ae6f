"""Moments as they are typed: `30d`, `12h`, `2026-01-31`, `2026-01-31T08:30+01:00`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ducto.errors import ArgumentError

__all__ = ["moment", "next_midnight", "window"]

_AGO = re.compile(r"(?P<count>\d{1,5})(?P<unit>[hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def moment(text: str, *, option: str, now: datetime | None = None) -> datetime:
    """An aware datetime in UTC: so long before `now`, or as written, in UTC unless it says otherwise.

    Raises `ArgumentError` that names `option`.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return (now or datetime.now(UTC)) - int(ago["count"]) * _UNITS[ago["unit"]]
        written = datetime.fromisoformat(text)
        return (written if written.tzinfo is not None else written.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentError(
            f"{option} takes a time ago, such as 12h, 30d or 4w, or a date, such as 2026-01-31 or "
            f"2026-01-31T08:30+01:00; {text[:40]!r} is neither."
        ) from None


def next_midnight() -> datetime:
    """The end of today, in UTC: a window up to it includes all that was booked, also by a clock a little ahead."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def window(since: str, until: str | None) -> tuple[datetime, datetime]:
    """The half-open window from `--since` to `--until`, by default to the end of today."""
    return moment(since, option="--since"), (next_midnight() if until is None else moment(until, option="--until"))
