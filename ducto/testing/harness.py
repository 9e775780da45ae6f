"""What the conformance checks need of a store's author: the store, and a way to let its time pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from ducto.stores.base import CreditStore
from ducto.testing.clock import ManualClock

__all__ = ["Harness", "HarnessFactory", "ManualClockHarness", "SkewableHarness"]


class Harness(Protocol):
    """A store that is set up, and its clock.

    Checks mint their own ids, so that all of them may share one store and one database; nobody else may use it at
    the same time, because some checks publish pricing configs and let days go by.
    """

    @property
    def store(self) -> CreditStore: ...

    async def advance(self, seconds: float) -> None:
        """Let `seconds` >= 0 pass for the store. Real time may pass besides; the checks allow for a few seconds."""


@runtime_checkable
class SkewableHarness(Protocol):
    """A harness whose clock can also jump back, as after a failover to a server with another clock."""

    @property
    def store(self) -> CreditStore: ...

    async def advance(self, seconds: float) -> None: ...

    async def step_back(self, seconds: float) -> None:
        """Set the store's clock `seconds` back."""


#: Opens a harness for one check. It may hand out the same store every time, or a fresh one.
HarnessFactory = Callable[[], AbstractAsyncContextManager[Harness]]


class ManualClockHarness:
    """The harness of a store whose clock is a `ManualClock`."""

    def __init__(self, store: CreditStore, clock: ManualClock) -> None:
        self._store = store
        self._clock = clock

    @property
    def store(self) -> CreditStore:
        return self._store

    async def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("advance() only goes forward; use step_back().")
        self._clock.advance(seconds)

    async def step_back(self, seconds: float) -> None:
        self._clock.advance(-seconds)
