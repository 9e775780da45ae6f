"""The calls of every metered request: reserve, deduct, release, charge. They travel in batches."""

from __future__ import annotations

from typing import Any

from ducto import arguments
from ducto.ledger.reserve import MAX_GRACE_SECONDS, MAX_TTL_SECONDS
from ducto.models import (
    DeductionResult,
    Metadata,
    OveragePolicy,
    ReleaseResult,
    RenewResult,
    Reservation,
    ReserveResult,
    TeamDeductionResult,
)
from ducto.stores.procedures.calling import (
    ProcedureCaller,
    account_key,
    account_of_reservation,
    filled,
    first_answer,
    mint_attempt,
    mint_key,
    returns_refusals,
    without_minted_key,
)
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["SpendingProcedures"]

#: What `ducto_reserve` takes where an item says nothing: most items need not say it.
_RESERVE_DEFAULTS = {"min_balance": 5, "ttl_seconds": 600, "grace_seconds": 60, "overage": "debt"}


def _usage(usage: UsageMetrics | None) -> dict[str, Any] | None:
    return None if usage is None else usage.model_dump(mode="json", exclude_defaults=True)


class SpendingProcedures(ProcedureCaller):
    """Holds and charges."""

    @returns_refusals(ReserveResult)
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
        arguments.check_amount(amount)
        arguments.check_id(user_id)
        arguments.check_key(idempotency_key)
        arguments.check_id(operation_type, name="operation_type")
        arguments.check_optional_id(model, name="model")
        arguments.check_optional_id(team_id, name="team_id")
        arguments.check_optional_id(feature, name="feature")
        arguments.check_optional_id(pricing_version, name="pricing_version")
        arguments.check_optional_id(fingerprint, name="fingerprint")
        arguments.check_optional_id(attempt_id, name="attempt_id")
        arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
        arguments.check_int(ttl_seconds, minimum=1, maximum=MAX_TTL_SECONDS, name="ttl_seconds")
        arguments.check_int(grace_seconds, minimum=0, maximum=MAX_GRACE_SECONDS, name="grace_seconds")
        arguments.check_choice(overage, arguments.OVERAGE_POLICIES, name="overage")
        if max_settle is not None:
            arguments.check_amount(max_settle, name="max_settle")
        if max_concurrent is not None:
            arguments.check_int(max_concurrent, minimum=0, maximum=MAX_AMOUNT, name="max_concurrent")
        noted = arguments.check_metadata(metadata)
        key = mint_key() if idempotency_key is None else idempotency_key
        item = filled(
            {
                "user_id": user_id,
                "amount": amount,
                "operation_type": operation_type,
                "metadata": noted,
                "min_balance": min_balance,
                "idempotency_key": key,
                "ttl_seconds": ttl_seconds,
                "grace_seconds": grace_seconds,
                "model": model,
                "team_id": team_id,
                "overage": overage,
                "max_settle": max_settle,
                "max_concurrent": max_concurrent,
                "feature": feature,
                "pricing_version": pricing_version,
                "fingerprint": fingerprint,
                "attempt_id": attempt_id if attempt_id is not None else mint_attempt(idempotency_key),
            },
            _RESERVE_DEFAULTS,
        )
        account = account_key(user_id, team_id)
        result = await self._call_batched("ducto_reserve", account, item, ReserveResult, settle=False)
        return first_answer(result, key)

    @returns_refusals(DeductionResult)
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
        arguments.check_amount(amount)
        arguments.check_id(user_id)
        arguments.check_key(idempotency_key)
        noted = _check_notes(usage, model, pricing_version, metadata)
        account = account_of_reservation(reservation_id)
        item = filled(
            {
                "user_id": user_id,
                "reservation_id": reservation_id,
                "amount": amount,
                "idempotency_key": idempotency_key,
                "metadata": noted,
                "usage": _usage(usage),
                "estimated": bool(estimated),
                "model": model,
                "pricing_version": pricing_version,
            }
        )
        return await self._call_batched("ducto_deduct", account, item, DeductionResult, settle=True)

    @returns_refusals(ReleaseResult)
    async def release_reservation(self, user_id: str, reservation_id: str) -> ReleaseResult:
        arguments.check_id(user_id)
        account = account_of_reservation(reservation_id)
        item = {"user_id": user_id, "reservation_id": reservation_id}
        return await self._call_batched("ducto_release", account, item, ReleaseResult, settle=True)

    @returns_refusals(DeductionResult)
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
        return await self._charge(
            user_id,
            amount,
            operation_type,
            metadata,
            team_id=None,
            idempotency_key=idempotency_key,
            min_balance=min_balance,
            force=force,
            model=model,
            feature=feature,
            usage=usage,
            estimated=estimated,
            pricing_version=pricing_version,
        )

    @returns_refusals(TeamDeductionResult)
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
        arguments.check_id(team_id, name="team_id")
        charged = await self._charge(
            user_id,
            amount,
            operation_type,
            metadata,
            team_id=team_id,
            idempotency_key=idempotency_key,
            min_balance=min_balance,
            force=force,
            model=model,
            feature=feature,
            usage=usage,
            estimated=estimated,
            pricing_version=pricing_version,
        )
        if charged.error is not None:
            return TeamDeductionResult(error=charged.error, message=charged.message, details=charged.details)
        return TeamDeductionResult(
            transaction_id=charged.transaction_id,
            team_id=team_id,
            user_id=user_id,
            amount=charged.amount,
            balance_after=charged.balance_after,
            available=charged.available,
            replayed=charged.replayed,
        )

    async def _charge(
        self,
        user_id: str,
        amount: int,
        operation_type: str,
        metadata: Metadata,
        *,
        team_id: str | None,
        idempotency_key: str | None,
        min_balance: int,
        force: bool,
        model: str | None,
        feature: str | None,
        usage: UsageMetrics | None,
        estimated: bool,
        pricing_version: str | None,
    ) -> DeductionResult:
        arguments.check_amount(amount)
        arguments.check_id(user_id)
        arguments.check_key(idempotency_key)
        arguments.check_id(operation_type, name="operation_type")
        arguments.check_optional_id(feature, name="feature")
        arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
        noted = _check_notes(usage, model, pricing_version, metadata)
        key = mint_key() if idempotency_key is None else idempotency_key
        item = filled(
            {
                "user_id": user_id,
                "amount": amount,
                "operation_type": operation_type,
                "metadata": noted,
                "team_id": team_id,
                "idempotency_key": key,
                "min_balance": min_balance,
                "force": bool(force),
                "model": model,
                "feature": feature,
                "usage": _usage(usage),
                "estimated": bool(estimated),
                "pricing_version": pricing_version,
            }
        )
        account = account_key(user_id, team_id)
        # A forced charge records work that was done, as a deduct does.
        result = await self._call_batched("ducto_charge", account, item, DeductionResult, settle=bool(force))
        return first_answer(result, key)

    @returns_refusals(RenewResult)
    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> RenewResult:
        arguments.check_id(user_id)
        arguments.check_int(ttl_seconds, minimum=1, maximum=MAX_TTL_SECONDS, name="ttl_seconds")
        account_of_reservation(reservation_id)
        return await self._outcome(
            RenewResult,
            "ducto_renew",
            {"p_user_id": user_id, "p_reservation_id": reservation_id, "p_ttl_seconds": ttl_seconds},
        )

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        arguments.check_id(user_id)
        account_of_reservation(reservation_id)
        found = await self._read(
            Reservation, "ducto_get_reservation", {"p_user_id": user_id, "p_reservation_id": reservation_id}
        )
        return without_minted_key(found)


def _check_notes(
    usage: UsageMetrics | None, model: str | None, pricing_version: str | None, metadata: Metadata
) -> dict[str, Any] | None:
    arguments.check_usage(usage)
    arguments.check_optional_id(model, name="model")
    arguments.check_optional_id(pricing_version, name="pricing_version")
    return arguments.check_metadata(metadata)
