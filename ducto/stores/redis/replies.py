"""Finished replies: a keyed call that was answered before is answered again without the inner store.

Only replies of calls that succeeded, which never change again. A reply is given only to the same call, compared by the
ledger's own rule; whatever else comes under the key goes to the inner store, which refuses it in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from ducto import arguments
from ducto.errors import CreditError
from ducto.ledger.keys import COMPARED
from ducto.models import Outcome
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.keys import RedisKeys, digest
from ducto.stores.redis.link import RedisLink, RedisUnavailable

__all__ = ["KeyedCall", "Replies"]

Reply = TypeVar("Reply", bound=Outcome)

#: What may differ between a call and its retry and is easy to check; all else must be the same.
_NOTES = ("metadata", "usage")


class KeyedCall(NamedTuple, Generic[Reply]):
    """A call under its caller's own key: where its reply is kept, and what its arguments are compared by."""

    place: str
    reply: type[Reply]
    compared: str
    others: str
    notes: tuple[object, object]

    @classmethod
    def of(
        cls,
        reply: type[Reply],
        operation: Literal["add", "charge", "deduct", "refund"],
        account: str,
        key: str,
        given: Mapping[str, Any],
        *,
        scope: str = "",
    ) -> KeyedCall[Reply]:
        """`given` are the call's arguments by name, without the key; `scope` is what else the key belongs to."""
        compared = COMPARED[operation]
        return cls(
            RedisKeys.reply(account, operation, key, scope),
            reply,
            digest(*(given[name] for name in compared)),
            digest(*((name, each) for name, each in sorted(given.items()) if name not in (*compared, *_NOTES))),
            (given.get("metadata"), given.get("usage")),
        )

    def has_valid_notes(self) -> bool:
        metadata, usage = self.notes
        try:
            arguments.check_metadata(metadata)
            arguments.check_usage(usage)
        except CreditError:
            return False
        return True


class Replies:
    """Replies in Redis, each for `ttl_seconds`."""

    def __init__(self, link: RedisLink, *, ttl_seconds: int, counters: CacheCounters) -> None:
        self._link = link
        self._ttl_seconds = ttl_seconds
        self._counters = counters

    async def recall(self, call: KeyedCall[Reply]) -> Reply | None:
        """The reply that the same call got before, marked as replayed; `None` where the inner store must tell."""
        try:
            text = await self._link.command("GET", call.place)
        except RedisUnavailable:
            self._counters.fallbacks += 1
            return None
        if text is None:
            return None
        try:
            compared, others, fields = json.loads(text)
            if (compared, others) != (call.compared, call.others) or not call.has_valid_notes():
                return None
            return call.reply.model_validate({**fields, "replayed": True})
        except (ValueError, TypeError, ValidationError):
            return None  # Nothing that this version has written.

    async def remember(self, call: KeyedCall[Reply], reply: Reply) -> None:
        """Keep the reply of a call that succeeded."""
        kept = [call.compared, call.others, reply.model_dump(mode="json", exclude_defaults=True)]
        text = json.dumps(kept, separators=(",", ":"))
        try:
            await self._link.command("SET", call.place, text, "EX", self._ttl_seconds)
        except RedisUnavailable:
            self._counters.fallbacks += 1
