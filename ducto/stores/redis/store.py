"""`RedisCacheStore`: Redis in front of another store, as a cache and never as an authority."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ducto.models import (
    AllowanceResult,
    BalanceResult,
    GetUserPlanResult,
    PlanDefinition,
    PricingConfigData,
    PricingConfigHistoryItem,
    PricingConfigResult,
)
from ducto.stores.base import CreditStore
from ducto.stores.redis.link import RedisLink
from ducto.stores.redis.spending import RedisSpending
from ducto.stores.redis.values import ALLOWANCE, BALANCE, PLAN
from ducto.stores.redis.writes import RedisWrites

if TYPE_CHECKING:
    import redis.asyncio

__all__ = ["RedisCacheStore"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RedisCacheStore(RedisSpending, RedisWrites):
    """`RedisCacheStore(inner, "redis://host:6379")` answers as `inner` does, and many reads without asking it.

    Whether a call is admitted and what it is charged is decided by `inner` alone. Redis serves balances, availability,
    plans, the allowance, pricing, and the replies of keyed calls that were answered before (deduct, charge, add,
    refund, also of teams), and it refuses who was just refused. Without Redis, or when it does not answer within 50 ms,
    every call goes to `inner`.

    What a reader may rely on, where all stores of one database have the same Redis and `prefix`:

    1. Once a write that came through any `RedisCacheStore` has been answered, no reader through Redis sees what was
       before it.
    2. Where Redis could not be told of the write within its time, or has lost what it was told in a failover, the
       process that wrote still sees its own write; others may see what was before for at most `ttl_seconds`.
    3. A write that came through no `RedisCacheStore` (another store on the same database, SQL by hand), and one whose
       process died before it was answered, is seen within `ttl_seconds`. Published pricing is seen within a second.
    4. A call whose outcome is not known (`StoreError`) may take effect later: nothing of its accounts is kept for 15
       seconds.

    What changes by itself (a grant or a hold ends, a month begins) is seen when it does, as far as the clocks of the
    processes and of the database are within a second of each other. `clock` is the process's, in aware datetimes; where
    it is set back, what was kept before is not believed. From a store that does not say when an answer will change
    (`stable_until`) such reads are kept for a second.

    `cheap_refusals`: who was refused for lack of credits is refused again, for as much or more, without `inner`, until
    anything is written to the account or falls due, pricing changes, or a second has passed. Only without an
    idempotency key or at the first use of one that this process has just made (`ducto.fresh_keys`), so that a retry of
    an accepted call is never refused. It may lag by that second where what lifts the refusal does not pass this Redis.

    `redis` is a URL, a client of `redis.asyncio`, or a `RedisLink` to share; what is handed in stays its owner's to
    close. All keys in Redis begin with `prefix`, which must be another one for each database; delete them after a
    database was restored from a backup. A reply is kept for `reply_ttl_seconds`. One store for each event loop. Raises
    `ConfigError` for settings that cannot be, and where the extra `redis` is not installed.
    """

    def __init__(
        self,
        inner: CreditStore,
        redis: str | redis.asyncio.Redis | redis.asyncio.RedisCluster | RedisLink,
        *,
        ttl_seconds: float = 30.0,
        prefix: str = "ducto",
        reply_ttl_seconds: int = 86_400,
        cheap_refusals: bool = True,
        clock: Callable[[], datetime] = _utc_now,
        owns_inner: bool = False,
    ) -> None:
        super().__init__(
            inner,
            redis,
            ttl_seconds=ttl_seconds,
            prefix=prefix,
            reply_ttl_seconds=reply_ttl_seconds,
            cheap_refusals=cheap_refusals,
            clock=clock,
            owns_inner=owns_inner,
        )

    # Reads of accounts

    async def get_balance(self, user_id: str) -> BalanceResult:
        return await self._cache.read(BALANCE, self._keys.user(user_id), lambda: self._inner.get_balance(user_id))

    async def get_user_plan(self, user_id: str) -> GetUserPlanResult:
        return await self._cache.read(PLAN, self._keys.user(user_id), lambda: self._inner.get_user_plan(user_id))

    async def check_allowance(self, user_id: str) -> AllowanceResult:
        return await self._cache.read(ALLOWANCE, self._keys.user(user_id), lambda: self._inner.check_allowance(user_id))

    # Pricing

    async def get_active_pricing(self) -> PricingConfigResult | None:
        return await self._pricing.active()

    async def get_pricing_config(self, version: int | str) -> PricingConfigResult | None:
        return await self._pricing.config(version)

    async def get_pricing_history(self) -> list[PricingConfigHistoryItem]:
        return await self._pricing.history()

    async def list_plans(self, *, include_dropped: bool = False) -> list[PlanDefinition]:
        return await self._pricing.plans(include_dropped=include_dropped)

    async def set_active_pricing(
        self,
        config: PricingConfigData | Mapping[str, Any],
        label: str | None = None,
        *,
        expected_version: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        return await self._published(
            lambda: self._inner.set_active_pricing(
                config, label, expected_version=expected_version, idempotency_key=idempotency_key
            ),
            is_first_answer=idempotency_key is None,
        )

    async def activate_pricing(self, version: int | str) -> str:
        return await self._published(lambda: self._inner.activate_pricing(version), is_first_answer=True)

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        return self._pricing.listen(heard)
