"""Repeating a store call whose outcome is not known: with the same key, a few times, with growing random
pauses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ducto.errors import StoreError

__all__ = ["BRIEF", "PATIENT", "PROMPT", "RetryPolicy", "retried"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most `attempts` calls, none begun later than `total_seconds` after the first."""

    attempts: int
    first_pause_seconds: float
    longest_pause_seconds: float
    total_seconds: float

    def pause_seconds(self, failures: int, asked: float | None) -> float:
        """The pause after so many failures: doubling, with jitter, and not shorter than what the server asked
        for.
        """
        grown = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** (failures - 1))
        return max(asked or 0.0, grown * random.uniform(0.5, 1.0))


#: For an admission: its caller waits, and can be told to come back.
BRIEF = RetryPolicy(attempts=3, first_pause_seconds=0.05, longest_pause_seconds=0.2, total_seconds=1.0)
#: For a charge of work that was done: to give up loses money.
PATIENT = RetryPolicy(attempts=8, first_pause_seconds=0.05, longest_pause_seconds=2.0, total_seconds=10.0)

#: For a charge that a journal keeps: what is not answered soon is charged in the background.
PROMPT = RetryPolicy(attempts=6, first_pause_seconds=0.05, longest_pause_seconds=0.5, total_seconds=2.0)


def _is_retryable(error: StoreError) -> bool:
    return error.retryable


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    policy: RetryPolicy,
    may_repeat: Callable[[StoreError], bool] = _is_retryable,
) -> T:
    """The answer of `call`, which must be safe to repeat.

    Raises the last `StoreError`, or at once one that `may_repeat` says no to.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + policy.total_seconds
    failures = 0
    while True:
        try:
            return await call()
        except StoreError as error:
            failures += 1
            if not may_repeat(error) or failures >= policy.attempts:
                raise
            pause = policy.pause_seconds(failures, error.retry_after_seconds)
            if loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
