"""Accounts that were written to while Redis could not be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Untold", "UntoldWrites"]

#: More accounts than this at a time are too many to tell apart.
_MOST_ACCOUNTS = 10_000


class Untold(NamedTuple):
    """Redis may still have what was true before a write. `number` tells it from another write's."""

    number: int
    ends_at: float
    #: Until when nothing may be kept, for a write whose outcome is not known; else 0.
    held_until: float


class UntoldWrites:
    """Which accounts this process may not read from Redis before it has told Redis to forget them.

    After `seconds`, the longest that anything is kept, there is nothing left in Redis to be afraid of. `monotonic`
    gives the seconds of a clock that is never set.
    """

    def __init__(self, *, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._numbers = 0
        self._accounts: dict[str, Untold] = {}
        #: Set where any account may be meant, save those that Redis was told of since.
        self._all: Untold | None = None
        self._told: set[str] = set()

    def add(self, account: str, *, hold_seconds: float = 0.0) -> None:
        """Redis could not be told of a write to `account`."""
        self._accounts[account] = self._new(hold_seconds)
        if len(self._accounts) > _MOST_ACCOUNTS:
            held_until = max(each.held_until for each in self._accounts.values())
            self.add_all(hold_seconds=max(0.0, held_until - self._monotonic()))

    def add_all(self, *, hold_seconds: float = 0.0) -> None:
        """Nothing that Redis has now may be believed."""
        self._all = self._new(hold_seconds)
        self._told.clear()
        self._accounts.clear()

    def find(self, account: str) -> Untold | None:
        """What stands between this process and what Redis has of `account`."""
        if not self._accounts and self._all is None:
            return None
        now = self._monotonic()
        if self._all is not None and self._all.ends_at <= now:
            self._all = None
            self._told.clear()
        found = self._accounts.get(account)
        if found is not None and found.ends_at <= now:
            del self._accounts[account]
            found = None
        if found is None and self._all is not None and account not in self._told:
            return self._all
        return found

    def told(self, account: str, untold: Untold) -> None:
        """Redis has forgotten the account since `untold` was found."""
        if self._accounts.get(account) is untold:
            del self._accounts[account]
        elif self._all is untold and len(self._told) < 10 * _MOST_ACCOUNTS:
            self._told.add(account)

    def _new(self, hold_seconds: float) -> Untold:
        self._numbers += 1
        now = self._monotonic()
        # A second more, for what Redis was doing when it was last heard of.
        return Untold(
            self._numbers, now + max(self._seconds, hold_seconds) + 1.0, now + hold_seconds if hold_seconds else 0.0
        )
