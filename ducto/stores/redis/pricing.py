"""Pricing and plans through Redis, seen everywhere at once.

Which version is active, the plans and the history are at most 0.3 s old whoever publishes and however; a publish
through Redis is seen by every reader of it from its acknowledgement on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from pydantic import TypeAdapter

from ducto.models import PlanDefinition, PricingConfigHistoryItem, PricingConfigResult
from ducto.stores.base import CreditStore
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import RedisLink, RedisUnavailable
from ducto.stores.redis.shared_reads import SharedField, SharedReads

__all__ = ["RedisPricing"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")

#: With the manager's half second between two polls, a publish that nobody announces is seen within a second.
_MAX_AGE_SECONDS = 0.3
#: A version never changes; this bounds what a database that was made anew behind the same Redis may suffer.
_VERSION_AGE_SECONDS = 3_600.0

_CONFIG: TypeAdapter[PricingConfigResult | None] = TypeAdapter(PricingConfigResult | None)
_HISTORY: TypeAdapter[list[PricingConfigHistoryItem]] = TypeAdapter(list[PricingConfigHistoryItem])
_PLANS: TypeAdapter[list[PlanDefinition]] = TypeAdapter(list[PlanDefinition])

_LONGEST_VERSION = 64


class RedisPricing:
    """Reads of `inner` about pricing, shared by all processes on one Redis. Raises what `inner` raises.

    Everything is in one Redis hash, `{prefix}:1:{pricing}`, and published versions are told on `{prefix}:1:pricing`.
    """

    def __init__(self, link: RedisLink, inner: CreditStore, *, prefix: str, counters: CacheCounters) -> None:
        self._link = link
        self._inner = inner
        self._channel = f"{prefix}:1:pricing"
        self._shared = SharedReads(link, key=f"{prefix}:1:{{pricing}}", channel=self._channel, counters=counters)
        self._heard: list[Callable[[str | None], None]] = []
        self._stop_hearing: list[Callable[[], None]] = []
        self._active = SharedField("active", inner.get_active_pricing, _CONFIG, _MAX_AGE_SECONDS)
        self._history = SharedField("history", inner.get_pricing_history, _HISTORY, _MAX_AGE_SECONDS)
        self._plans = {
            dropped: SharedField(
                f"plans:{dropped:d}", partial(inner.list_plans, include_dropped=dropped), _PLANS, _MAX_AGE_SECONDS
            )
            for dropped in (False, True)
        }

    async def active(self) -> PricingConfigResult | None:
        """`get_active_pricing`."""
        return (await self._shared.read(self._active)).value

    async def config(self, version: int | str) -> PricingConfigResult | None:
        """`get_pricing_config`."""
        text = str(version) if type(version) in (int, str) else ""
        if not text or len(text) > _LONGEST_VERSION or not text.isascii() or not text.isprintable():
            return await self._inner.get_pricing_config(version)
        load = partial(self._inner.get_pricing_config, version)
        field = SharedField(f"config:{text}", load, _CONFIG, _VERSION_AGE_SECONDS, keeps_none=False)
        found, active = await asyncio.gather(self._shared.read(field), self._shared.read(self._active))
        if found.value is None:
            return None
        is_active = active.value is not None and active.value.id == found.value.id
        return found.value.model_copy(update={"active": is_active})

    async def history(self) -> list[PricingConfigHistoryItem]:
        """`get_pricing_history`."""
        return list((await self._shared.read(self._history)).value)

    async def plans(self, *, include_dropped: bool) -> list[PlanDefinition]:
        """`list_plans`."""
        return list((await self._shared.read(self._plans[bool(include_dropped)])).value)

    async def epoch(self) -> str:
        """A text that is another one after every publish and activate, for whatever was computed from pricing.

        Raises `RedisUnavailable` where there is none to be had: nothing may then be served or kept. Raises what
        `get_active_pricing` raises.
        """
        found = await self._shared.read(self._active)
        if found.epoch is None:
            raise RedisUnavailable("the pricing epoch is not known")
        return found.epoch

    async def published(self, version: str | None) -> None:
        """To be awaited after `inner` published or activated, or perhaps did, before anybody is told that it did.

        `version` is the id that is active now, `None` if that is not known.
        """
        await self._shared.published(version)
        if not self._link.available:
            self._tell(version)

    def listen(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        """`on_pricing_published`: what is told on Redis, and what `inner` hears, which is passed on to Redis."""
        self._heard.append(heard)
        if len(self._heard) == 1:
            self._stop_hearing = [
                self._link.listen(self._channel, lambda version: self._tell(version or None)),
                self._inner.on_pricing_published(self._heard_inside),
            ]

        def remove() -> None:
            if heard in self._heard:
                self._heard.remove(heard)
                if not self._heard:
                    self._stop()

        return remove

    async def aclose(self) -> None:
        """Stop listening and reading ahead."""
        self._heard.clear()
        self._stop()
        await self._shared.aclose()

    def _stop(self) -> None:
        for stop in self._stop_hearing:
            stop()
        self._stop_hearing = []

    def _heard_inside(self, version: str | None) -> None:
        if version is None:
            self._tell(None)
        else:
            self._shared.spawn(self._pass_on(version))

    async def _pass_on(self, version: str) -> None:
        # First Redis, so that whoever is told and reads by way of Redis finds the new version there.
        await self._shared.published(version, heard=True)
        self._tell(version)

    def _tell(self, version: str | None) -> None:
        for heard in list(self._heard):
            try:
                heard(version)
            except Exception:
                logger.exception("A callback for published pricing failed.")
