"""Holds and charges through Redis: refused cheaply, answered again cheaply, and seen by every read after them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ducto.models import (
    DeductionResult,
    Metadata,
    Outcome,
    OveragePolicy,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    TeamDeductionResult,
)
from ducto.stores.redis.front import RedisFront
from ducto.usage import UsageMetrics

__all__ = ["RedisSpending"]

Charged = TypeVar("Charged", bound=Outcome)


class RedisSpending(RedisFront):
    """The calls of every metered request."""

    async def reserve_credits(
        self,
        user_id: str,
        amount: int,
        operation_type: str,
        metadata: Metadata = None,
        min_balance: int = 5,
        *,
        idempotency_key: str | None = None,
        ttl_seconds: int = 600,
        grace_seconds: int = 60,
        model: str | None = None,
        team_id: str | None = None,
        overage: OveragePolicy = "debt",
        max_settle: int | None = None,
        max_concurrent: int | None = None,
        feature: str | None = None,
        pricing_version: str | None = None,
        fingerprint: str | None = None,
        attempt_id: str | None = None,
    ) -> ReserveResult:
        async def reserve() -> ReserveResult:
            return await self._inner.reserve_credits(
                user_id,
                amount,
                operation_type,
                metadata,
                min_balance,
                idempotency_key=idempotency_key,
                ttl_seconds=ttl_seconds,
                grace_seconds=grace_seconds,
                model=model,
                team_id=team_id,
                overage=overage,
                max_settle=max_settle,
                max_concurrent=max_concurrent,
                feature=feature,
                pricing_version=pricing_version,
                fingerprint=fingerprint,
                attempt_id=attempt_id,
            )

        account = self._keys.payer(user_id, team_id)
        asked = self._asked(
            "reserve",
            user_id,
            team_id,
            amount,
            key=idempotency_key,
            notes=(metadata, None),
            texts=(fingerprint, attempt_id),
            terms=(
                operation_type,
                min_balance,
                ttl_seconds,
                grace_seconds,
                model,
                overage,
                max_settle,
                max_concurrent,
                feature,
                pricing_version,
            ),
        )
        return await self._admitted(ReserveResult, asked, lambda: self._written([account], reserve))

    async def charge_credits(
        self,
        user_id: str,
        amount: int,
        operation_type: str = "charge",
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        min_balance: int = 0,
        force: bool = False,
        model: str | None = None,
        feature: str | None = None,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        pricing_version: str | None = None,
    ) -> DeductionResult:
        async def charge() -> DeductionResult:
            return await self._inner.charge_credits(
                user_id,
                amount,
                operation_type,
                metadata,
                idempotency_key=idempotency_key,
                min_balance=min_balance,
                force=force,
                model=model,
                feature=feature,
                usage=usage,
                estimated=estimated,
                pricing_version=pricing_version,
            )

        terms = (operation_type, min_balance, force, model, feature, estimated, pricing_version)
        return await self._charged(
            DeductionResult, charge, user_id, None, amount, idempotency_key, terms, model, metadata, usage
        )

    async def deduct_team(
        self,
        team_id: str,
        user_id: str,
        amount: int,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
        operation_type: str = "charge",
        min_balance: int = 0,
        force: bool = False,
        model: str | None = None,
        feature: str | None = None,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        pricing_version: str | None = None,
    ) -> TeamDeductionResult:
        async def charge() -> TeamDeductionResult:
            return await self._inner.deduct_team(
                team_id,
                user_id,
                amount,
                metadata,
                idempotency_key=idempotency_key,
                operation_type=operation_type,
                min_balance=min_balance,
                force=force,
                model=model,
                feature=feature,
                usage=usage,
                estimated=estimated,
                pricing_version=pricing_version,
            )

        terms = (operation_type, min_balance, force, model, feature, estimated, pricing_version)
        return await self._charged(
            TeamDeductionResult, charge, user_id, team_id, amount, idempotency_key, terms, model, metadata, usage
        )

    async def _charged(
        self,
        result: type[Charged],
        charge: Callable[[], Awaitable[Charged]],
        user_id: str,
        team_id: str | None,
        amount: int,
        key: str | None,
        terms: tuple[object, ...],
        model: str | None,
        metadata: Metadata,
        usage: UsageMetrics | None,
    ) -> Charged:
        """The answer of a direct charge of a user, or of a team for its member."""
        account = self._keys.payer(user_id, team_id)
        asked = self._asked("charge", user_id, team_id, amount, key=key, notes=(metadata, usage), terms=terms)
        given = {"amount": amount, "model": model, "terms": terms, "metadata": metadata, "usage": usage}
        scope = "" if team_id is None else user_id
        keyed = self._keyed(result, "charge", account, key, given, scope=scope)
        return await self._admitted(result, asked, lambda: self._answered(account, charge, keyed, team_id=team_id))

    async def deduct_credits(
        self,
        user_id: str,
        reservation_id: str,
        amount: int,
        idempotency_key: str | None = None,
        metadata: Metadata = None,
        *,
        usage: UsageMetrics | None = None,
        estimated: bool = False,
        model: str | None = None,
        pricing_version: str | None = None,
    ) -> DeductionResult:
        async def deduct() -> DeductionResult:
            return await self._inner.deduct_credits(
                user_id,
                reservation_id,
                amount,
                idempotency_key,
                metadata,
                usage=usage,
                estimated=estimated,
                model=model,
                pricing_version=pricing_version,
            )

        account = self._keys.of_minted(reservation_id)
        if account is None:
            return await deduct()  # Which refuses it: no account has such a reservation.
        keyed = self._keyed(
            DeductionResult,
            "deduct",
            account,
            idempotency_key,
            {
                "amount": amount,
                "reservation_id": reservation_id,
                "model": model,
                "terms": (estimated, pricing_version),
                "metadata": metadata,
                "usage": usage,
            },
            scope=user_id,
        )
        return await self._answered(account, deduct, keyed)

    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        return await self._written(
            self._keys.all_of(reservation_id), lambda: self._inner.release_reservation(user_id, reservation_id)
        )

    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> RenewResult:
        return await self._written(
            self._keys.all_of(reservation_id),
            lambda: self._inner.renew_reservation(user_id, reservation_id, ttl_seconds=ttl_seconds),
        )
