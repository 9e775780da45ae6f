"""Kept answers in Redis, so that a repeated request is answered whichever replica it reaches."""

from __future__ import annotations

import json
import logging

from ducto.errors import ConfigError
from ducto.middleware.answers import AnswerCache, KeptAnswer
from ducto.stores.redis.link import RedisLink, RedisUnavailable

__all__ = ["RedisAnswers"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: Of the layout of a value: what another one wrote is not found.
_LAYOUT_VERSION = 1


class RedisAnswers(AnswerCache):
    """Keeps answers in Redis for `max_age_seconds` each, for all gateways with the same `prefix`.

    `redis` is a URL, as `RedisLink` takes it, or a link, which stays its owner's to close. An answer that takes more
    than `max_bytes_each` is not kept. Redis that is gone, or slow, is as good as nothing found. What is kept is what
    the model said, as plain bytes: whoever reads that Redis reads it.
    """

    def __init__(
        self,
        redis: str | RedisLink,
        *,
        prefix: str = "ducto",
        max_age_seconds: float = 3_600.0,
        max_bytes_each: int = 1_000_000,
    ) -> None:
        if not max_age_seconds >= 0.001 or max_bytes_each < 0:
            raise ConfigError("max_age_seconds must be above 0, and max_bytes_each not negative.")
        self._owns_link = isinstance(redis, str)
        self._link = RedisLink(redis) if isinstance(redis, str) else redis
        self._start = f"{prefix}:{_LAYOUT_VERSION}:answer:"
        self._max_age_ms = round(max_age_seconds * 1000)
        self._max_bytes_each = max_bytes_each

    async def get(self, key: str) -> KeptAnswer | None:
        try:
            found = await self._link.command("GET", self._start + key)
        except RedisUnavailable as error:
            logger.debug("A kept answer was not looked for (%s).", error)
            return None
        return None if found is None else _decoded(found)

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep `answer`, unless it is too large."""
        if answer.size_bytes > self._max_bytes_each:
            return
        try:
            await self._link.command("SET", self._start + key, _encoded(answer), "PX", self._max_age_ms)
        except RedisUnavailable as error:
            logger.debug("An answer was not kept (%s).", error)

    async def aclose(self) -> None:
        """Close the link, if it was made from a URL. Harmless when repeated."""
        if self._owns_link:
            await self._link.aclose()


def _encoded(answer: KeptAnswer) -> bytes:
    """A line of JSON, and the body as it is. Headers are of no known encoding; latin-1 has a letter for each byte."""
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]
    return json.dumps({"status": answer.status, "headers": headers}).encode() + b"\n" + answer.body


def _decoded(text: bytes) -> KeptAnswer:
    head, _, body = text.partition(b"\n")
    told = json.loads(head)
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in told["headers"])
    return KeptAnswer(int(told["status"]), headers, body)
