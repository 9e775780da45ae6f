"""A memory store that can be made slow, or lose its answers, and what the tests of the manager share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from ducto.errors import StoreError
from ducto.events import Event
from ducto.manager import CreditManager
from ducto.models import DeductionResult, ReleaseResult, ReserveResult
from ducto.stores.memory import MemoryStore
from ducto.usage import UsageMetrics

PRICING = {"models": {"m": "input_tokens * 2 + output_tokens * 10"}, "min_balance": 0}

T = TypeVar("T")


class TroubledStore(MemoryStore):
    """Every reserve, deduct and release waits `pauses` turns of the loop before and after it is booked.

    `lose` answers are lost after the booking, `fail` calls fail before it; the names of the verbs called are kept.
    """

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(clock=clock)
        self.pauses = 0
        self.lose = 0
        self.fail = 0
        self.retryable = True
        self.calls: list[str] = []

    async def reserve_credits(self, *args: Any, **kwargs: Any) -> ReserveResult:
        return await self._troubled("reserve", lambda: super(TroubledStore, self).reserve_credits(*args, **kwargs))

    async def deduct_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
        return await self._troubled("deduct", lambda: super(TroubledStore, self).deduct_credits(*args, **kwargs))

    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        return await self._troubled(
            "release", lambda: super(TroubledStore, self).release_reservation(user_id, reservation_id)
        )

    async def _troubled(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(verb)
        await self._pause()
        if self.fail > 0:
            self.fail -= 1
            raise StoreError("the store is down", retryable=self.retryable)
        answer = await call()
        await self._pause()
        if self.lose > 0:
            self.lose -= 1
            raise StoreError("the answer was lost", retryable=True)
        return answer

    async def _pause(self) -> None:
        for _ in range(self.pauses):
            await asyncio.sleep(0)


class Heard:
    """A handler that remembers."""

    def __init__(self, manager: CreditManager, name: Any = "*") -> None:
        self.events: list[Event] = []
        manager.on(name, self.events.append)

    async def names(self) -> list[str]:
        await settle_down()
        return [event.name.removeprefix("credits.") for event in self.events]

    async def of(self, name: str) -> list[Event]:
        await settle_down()
        return [event for event in self.events if event.name == f"credits.{name}"]


async def settle_down(turns: int = 20) -> None:
    """Let tasks that need no time run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def usage(output: int = 0, *, input: int = 0, model: str | None = "m") -> UsageMetrics:
    return UsageMetrics(model=model, input_tokens=input, output_tokens=output)
