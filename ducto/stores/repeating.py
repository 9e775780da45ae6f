"""Repeating a call whose outcome is not known. An error says nothing about the outcome: about a third of the calls that
failed while a server was killed had been committed. So the same call, with the same keys, is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ducto.errors import StoreError
from ducto.retrying import RetryPolicy

__all__ = ["OutcomeUnknownError", "repeated"]

T = TypeVar("T")


class OutcomeUnknownError(StoreError):
    """The call may or may not have been carried out, or was rolled back through no fault of its own."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, retryable=True, retry_after_seconds=retry_after_seconds)


async def repeated(call: Callable[[], Awaitable[T]], *, policy: RetryPolicy) -> T:
    """The answer of `call`, which must be safe to repeat.

    Repeats what failed with `OutcomeUnknownError`, and once that has happened also a server that is away; a lock that
    was not had in time and every other error are raised at once.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + policy.total_seconds
    failures = 0
    unknown = False
    while True:
        try:
            return await call()
        except StoreError as error:
            unknown = unknown or isinstance(error, OutcomeUnknownError)
            failures += 1
            if not unknown or not error.retryable or error.busy or failures >= policy.attempts:
                raise
            pause = policy.pause_seconds(failures, error.retry_after_seconds)
            if loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
