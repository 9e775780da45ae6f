"""Repeating a call whose outcome is not known. An error says nothing about the outcome: about a third of the calls that
failed while a server was killed had been committed. So the same call, with the same keys, is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ducto.errors import StoreError
from ducto.retrying import RetryPolicy, retried

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
    unknown = False

    def may_repeat(error: StoreError) -> bool:
        nonlocal unknown
        unknown = unknown or isinstance(error, OutcomeUnknownError)
        return unknown and error.retryable and not error.busy

    return await retried(call, policy=policy, may_repeat=may_repeat)
