"""What is kept of an account in Redis, as JSON, and until when it is good."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from ducto.models import AllowanceResult, AvailableResult, BalanceResult, GetUserPlanResult
from ducto.models.base import Row

__all__ = [
    "ALLOWANCE",
    "AVAILABLE",
    "BALANCE",
    "NO_CAPS",
    "PLAN",
    "SKEW",
    "CachedRead",
    "Moment",
    "NoCaps",
    "is_good",
    "milliseconds",
    "stable_until",
]

Kept = TypeVar("Kept", bound=Row)

#: How far the clocks of the processes and of the database may be apart: so much earlier than it changes, a value is
#: not served any more.
SKEW = timedelta(seconds=1)
_SKEW_MS = SKEW // timedelta(milliseconds=1)
#: What nobody can say when it changes is kept for so long.
_UNKNOWN_MS = 1_000


class NoCaps(Row):
    """Whether an account has no caps at all."""

    holds: bool


class Moment(NamedTuple):
    """When a read began, in milliseconds, and under which pricing; `None` where pricing does not matter."""

    now_ms: int
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class CachedRead(Generic[Kept]):
    """One kind of read: its field in the account's hash, and what decides how long the answer is good."""

    field: str
    model: type[Kept]
    until: Callable[[Kept], datetime | None]
    #: The answer depends on the active pricing config as well.
    by_pricing: bool = False

    def encode(self, value: Kept, moment: Moment) -> str:
        until = self.until(value)
        until_ms = moment.now_ms + _UNKNOWN_MS + _SKEW_MS if until is None else milliseconds(until)
        return json.dumps([moment.now_ms, until_ms, moment.epoch, value.model_dump(mode="json")], separators=(",", ":"))

    def decode(self, text: bytes | None, moment: Moment, own: Mapping[str, Any]) -> Kept | None:
        """The value if it is good at `moment`, with the fields that are the asker's `own`."""
        if text is None:
            return None
        try:
            began_ms, until_ms, epoch, fields = json.loads(text)
            if epoch != moment.epoch or not is_good(moment.now_ms, began_ms, until_ms):
                return None
            return self.model.model_validate({**fields, **own})
        except (ValueError, TypeError, ValidationError):
            return None  # Nothing that this version has written.


def is_good(now_ms: int, began_ms: int, until_ms: int) -> bool:
    """Whether what was loaded at `began_ms` and changes at `until_ms` holds now.

    Not before it was loaded either: where the clock was set back, what has changed by itself may change back.
    """
    return began_ms - _SKEW_MS < now_ms < until_ms - _SKEW_MS


def milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def stable_until(value: BalanceResult | AvailableResult | AllowanceResult) -> datetime | None:
    return value.stable_until


def _never(_: Row) -> datetime:
    return _LAST_DAY


_LAST_DAY = datetime.fromisoformat("9999-12-31T00:00:00+00:00")

BALANCE = CachedRead("balance", BalanceResult, stable_until)
AVAILABLE = CachedRead("available", AvailableResult, stable_until)
ALLOWANCE = CachedRead("allowance", AllowanceResult, stable_until, by_pricing=True)
PLAN = CachedRead("plan", GetUserPlanResult, _never, by_pricing=True)
NO_CAPS = CachedRead("no-caps", NoCaps, _never)
