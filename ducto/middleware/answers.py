"""Answers that are kept, so that a repeated request gets the first one's answer without a second call."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from ducto.errors import ConfigError

__all__ = ["AnswerCache", "InProcess", "InProcessAnswers", "KeptAnswer"]

#: Keep answers in an `InProcessAnswers` of one's own.
InProcess = Literal["in process"]

#: What an answer takes besides its bytes, roughly.
OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A finished answer as the client got it, plain or streamed, without the headers that we added."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return OVERHEAD_BYTES + len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


class AnswerCache(Protocol):
    """Where finished answers are kept. It is only ever asked for an answer whose call the store says was charged.

    The keys are opaque digests that already hold user, team, idempotency key and reservation. Forgetting is always
    allowed: the caller is then told that the call was charged already. An exception counts as not found.
    """

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer that was put under `key`, if it is still there."""
        ...

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep `answer`."""
        ...


class InProcessAnswers:
    """Keeps answers in this process, up to `max_bytes` in all and for `max_age_seconds` each; the oldest go first."""

    def __init__(
        self,
        *,
        max_bytes: int = 64_000_000,
        max_age_seconds: float = 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 0 or max_age_seconds < 0:
            raise ConfigError("max_bytes and max_age_seconds must not be negative.")
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, KeptAnswer]] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What is kept now."""
        return self._size_bytes

    async def get(self, key: str) -> KeptAnswer | None:
        self._forget_old()
        kept = self._answers.get(key)
        return kept[1] if kept is not None else None

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep `answer`, unless it alone is too large."""
        self._drop(key)
        self._forget_old()
        if answer.size_bytes > self._max_bytes:
            return
        self._answers[key] = (self._clock(), answer)
        self._size_bytes += answer.size_bytes
        while self._size_bytes > self._max_bytes:
            self._drop(next(iter(self._answers)))

    def _forget_old(self) -> None:
        oldest_allowed = self._clock() - self._max_age_seconds
        while self._answers and next(iter(self._answers.values()))[0] < oldest_allowed:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: str) -> None:
        kept = self._answers.pop(key, None)
        if kept is not None:
            self._size_bytes -= kept[1].size_bytes
