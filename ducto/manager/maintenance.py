"""Housekeeping that no single call pays for: ended holds, expired credits, old reservations."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ducto.errors import DuctoError, NotSupportedError
from ducto.manager.announcing import Announcer
from ducto.stores.base import CreditStore

__all__ = ["Maintenance", "MaintenanceReport"]

logger: logging.Logger = logging.getLogger("ducto.maintenance")

#: Work in portions, so that no lock is held for long.
PORTION = 1000
#: A portion that is still full after so many is left for the next round.
MAX_PORTIONS = 100
#: Rolling up locks nothing that a call needs, so that its portions may be larger.
ROLL_UP_PORTION = 10_000
KEEP_ENDED_DAYS = 30

T = TypeVar("T")

_guards: weakref.WeakKeyDictionary[CreditStore, threading.Lock] = weakref.WeakKeyDictionary()
_guards_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """`skipped`: another manager of the same store was at it in this process, so nothing was done.

    `rows_rolled_up` counts the ledger rows that were added to the sums behind the spend reports.
    """

    reservations_expired: int = 0
    credits_expired: int = 0
    reservations_pruned: int = 0
    rows_rolled_up: int = 0
    skipped: bool = False


class Maintenance:
    """Reaps, sweeps, prunes and rolls up one store, by one holder at a time in a process.

    Between processes no agreement is needed: the store's verbs do each thing once whoever asks.
    """

    def __init__(self, store: CreditStore, announcer: Announcer) -> None:
        self._store = store
        self._announcer = announcer
        self._unsupported: set[str] = set()
        with _guards_lock:
            self._guard = _guards.setdefault(store, threading.Lock())

    async def run_every(self, seconds: float) -> None:
        """Run for ever, about every so many seconds. What fails is logged and tried again the next time."""
        pause = seconds * random.uniform(0.5, 1.0)  # processes that start together should not work together
        while True:
            await asyncio.sleep(pause)
            pause = seconds
            try:
                await self.run()
            except DuctoError as error:
                logger.warning("Maintenance did not complete and is tried again: %s", error)
            except Exception:
                logger.exception("Maintenance failed and is tried again.")

    async def run(self) -> MaintenanceReport:
        """Do all that is due now. Raises `StoreError` where the store cannot be reached."""
        if not self._guard.acquire(blocking=False):
            return MaintenanceReport(skipped=True)
        try:
            return MaintenanceReport(
                reservations_expired=await self._tolerant("reap_expired_reservations", self._reap),
                credits_expired=await self._tolerant("sweep_expired_credits", self._sweep),
                reservations_pruned=await self._tolerant("prune_reservations", self._prune),
                rows_rolled_up=await self._tolerant("roll_up_spend", self._roll_up),
            )
        finally:
            self._guard.release()

    async def _tolerant(self, method: str, work: Callable[[], Awaitable[int]]) -> int:
        if method in self._unsupported:
            return 0
        try:
            return await work()
        except NotSupportedError as error:
            self._unsupported.add(method)
            logger.info("Maintenance leaves this out from now on: %s", error)
            return 0

    async def _reap(self) -> int:
        total = 0
        for _ in range(MAX_PORTIONS):
            reaped = await self._store.reap_expired_reservations(limit=PORTION)
            self._announcer.reaped(reaped)
            total += reaped.reaped
            if reaped.reaped < PORTION:
                break
        return total

    async def _sweep(self) -> int:
        swept = await self._store.sweep_expired_credits()
        self._announcer.swept(swept)
        return swept.amount

    async def _prune(self) -> int:
        return await _in_portions(
            lambda: self._store.prune_reservations(ended_before_days=KEEP_ENDED_DAYS, limit=PORTION), portion=PORTION
        )

    async def _roll_up(self) -> int:
        return await _in_portions(lambda: self._store.roll_up_spend(limit=ROLL_UP_PORTION), portion=ROLL_UP_PORTION)


async def _in_portions(work: Callable[[], Awaitable[int]], *, portion: int) -> int:
    """Work until a portion is not full; how much was done in all."""
    total = 0
    for _ in range(MAX_PORTIONS):
        done = await work()
        total += done
        if done < portion:
            break
    return total
