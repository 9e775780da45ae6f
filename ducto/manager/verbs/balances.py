"""Balances: what comes in, what is corrected, moved and returned, and what the ledger says."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ducto.manager.core import ManagerCore, key_or_new
from ducto.models import (
    AddCreditsResult,
    AddType,
    AdjustCreditsResult,
    AvailableResult,
    BalanceResult,
    Metadata,
    RefundResult,
    SweepResult,
    Transaction,
    TransactionPage,
    TransferResult,
)

__all__ = ["BalanceVerbs"]


class BalanceVerbs(ManagerCore):
    async def get_balance(self, user_id: str) -> BalanceResult:
        """The balance, held credits included. An unknown user has 0."""
        return await self._read(lambda: self.store.get_balance(user_id))

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        """Balance, held and available credits; with `team_id` those of the team's pool."""
        return await self._read(lambda: self.store.get_available(user_id, team_id=team_id))

    async def get_transaction(self, transaction_id: str) -> Transaction:
        """One ledger row. Raises `TransactionNotFoundError`."""
        return await self._read(lambda: self.store.get_transaction(transaction_id))

    async def list_transactions(
        self,
        user_id: str | None = None,
        *,
        team_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TransactionPage:
        """Ledger rows, newest first: the user's own, the team's, or with both the member's rows in the team."""
        return await self._read(
            lambda: self.store.list_transactions(user_id, team_id=team_id, cursor=cursor, limit=limit)
        )

    async def add_credits(
        self,
        user_id: str,
        amount: int,
        type: AddType = "adjustment",
        metadata: Metadata = None,
        expires_at: datetime | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AddCreditsResult:
        """Add `amount` >= 1 credits; with `expires_at` they expire then. Event: `credits.added`.

        Give the payment's event id as `idempotency_key`: a payment provider delivers events more than once.
        The key `signup` is the manager's own, for the signup bonus. Raises `InvalidAmountError`,
        `ArgumentError`, `CreditOverflowError`, `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        result = await self._written(
            "add_credits",
            lambda: self.store.add_credits(user_id, amount, type, metadata, expires_at, idempotency_key=key),
        )
        self._announcer.happened("credits.added", result, user_id=user_id, more={"type": type})
        return result

    async def adjust_credits(
        self,
        user_id: str,
        amount: int,
        *,
        direction: Literal["credit", "debit"],
        metadata: Metadata = None,
        min_balance: int = 0,
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> AdjustCreditsResult:
        """Correct a balance by hand. A debit leaves `min_balance` available unless `force`.

        Events: `credits.adjusted`, `credits.low_balance`. Raises `InsufficientCreditsError`,
        `InvalidAmountError`, `ArgumentError`, `CreditOverflowError`, `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        result = await self._written(
            "adjust_credits",
            lambda: self.store.adjust_credits(
                user_id,
                amount,
                direction=direction,
                metadata=metadata,
                min_balance=min_balance,
                force=force,
                idempotency_key=key,
            ),
        )
        if not result.replayed:
            self._announcer.happened("credits.adjusted", result, user_id=user_id)
            self._announcer.moved(user_id=user_id, team_id=None, amount=result.amount, balance_after=result.new_balance)
        return result

    async def transfer_credits(
        self,
        from_user_id: str,
        to_user_id: str,
        amount: int,
        *,
        metadata: Metadata = None,
        min_balance: int = 0,
        idempotency_key: str | None = None,
    ) -> TransferResult:
        """Move available credits between two users. Events (of the giver): `credits.transferred`,
        `.low_balance`.

        Raises `InsufficientCreditsError`, `InvalidAmountError`, `ArgumentError`, `CreditOverflowError`,
        `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        result = await self._written(
            "transfer_credits",
            lambda: self.store.transfer_credits(
                from_user_id,
                to_user_id,
                amount,
                metadata=metadata,
                min_balance=min_balance,
                idempotency_key=key,
            ),
        )
        if not result.replayed:
            self._announcer.happened("credits.transferred", result, user_id=from_user_id)
            self._announcer.moved(
                user_id=from_user_id, team_id=None, amount=-result.amount, balance_after=result.from_balance
            )
        return result

    async def refund_credits(
        self,
        transaction_id: str,
        amount: int | None = None,
        reason: str | None = None,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
    ) -> RefundResult:
        """Return a spend, or `amount` of it, to the account that paid; `None` means what is left of it.

        Event: `credits.refunded`. Without a key a full refund happens once, and again raises
        `AlreadyRefundedError`; a partial refund without a key happens at every call. Raises
        `TransactionNotFoundError`, `NotRefundableError`, `OverRefundError`, `InvalidAmountError`,
        `CreditOverflowError`, `IdempotencyMismatchError`.
        """
        key = key_or_new(idempotency_key)
        result = await self._written(
            "refund_credits",
            lambda: self.store.refund_credits(transaction_id, amount, reason, metadata, idempotency_key=key),
        )
        self._announcer.happened("credits.refunded", result, user_id=result.user_id, team_id=result.team_id)
        return result

    async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
        """Book the expiry of all credits that are due. Event: `credits.expired`, with the totals."""
        result = await self._read(lambda: self.store.sweep_expired_credits(dry_run))
        self._announcer.swept(result)
        return result
