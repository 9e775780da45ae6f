"""Credits that come in, move and go back, and reading the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.models import (
    AddCreditsResult,
    AddType,
    AdjustCreditsResult,
    AvailableResult,
    BalanceResult,
    EventPage,
    Metadata,
    RefundResult,
    Transaction,
    TransactionPage,
    TransferResult,
)
from ducto.stores.procedures.calling import (
    ProcedureCaller,
    check_transaction_id,
    mint_key,
    returns_refusals,
    without_minted_key,
)
from ducto.usage import MAX_AMOUNT

__all__ = ["BalanceProcedures", "check_cursor"]

#: No store hands out a longer cursor.
_MAX_CURSOR = 500


def check_cursor(cursor: object) -> None:
    """`cursor` is `None` or can be what an earlier page gave."""
    if cursor is None:
        return
    if not isinstance(cursor, str) or not cursor or not cursor.isascii() or not cursor.isprintable():
        raise ArgumentError("A cursor is what the page before gave as next_cursor.")
    if len(cursor) > _MAX_CURSOR:
        raise ArgumentError("A cursor is what the page before gave as next_cursor.")


class BalanceProcedures(ProcedureCaller):
    """Balances and the ledger."""

    async def get_balance(self, user_id: str) -> BalanceResult:
        arguments.check_id(user_id)
        return await self._read(BalanceResult, "ducto_get_balance", {"p_user_id": user_id})

    async def get_available(self, user_id: str, *, team_id: str | None = None) -> AvailableResult:
        arguments.check_id(user_id)
        arguments.check_optional_id(team_id, name="team_id")
        return await self._read(AvailableResult, "ducto_get_available", {"p_user_id": user_id, "p_team_id": team_id})

    @returns_refusals(AddCreditsResult)
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
        return await self._add("user", user_id, amount, type, metadata, expires_at, idempotency_key)

    @returns_refusals(AddCreditsResult)
    async def add_team_credits(
        self,
        team_id: str,
        amount: int,
        type: AddType = "adjustment",
        metadata: Metadata = None,
        expires_at: datetime | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AddCreditsResult:
        return await self._add("team", team_id, amount, type, metadata, expires_at, idempotency_key)

    async def _add(
        self,
        kind: Literal["user", "team"],
        account_id: str,
        amount: int,
        add_type: AddType,
        metadata: Metadata,
        expires_at: datetime | None,
        idempotency_key: str | None,
    ) -> AddCreditsResult:
        arguments.check_amount(amount, minimum=1)
        arguments.check_id(account_id, name=f"{kind}_id")
        arguments.check_key(idempotency_key)
        arguments.check_choice(add_type, arguments.ADD_TYPES, name="type")
        expiry = None if expires_at is None else arguments.check_instant(expires_at, name="expires_at")
        noted = arguments.check_metadata(metadata)
        return await self._outcome(
            AddCreditsResult,
            "ducto_add",
            {
                "p_account_kind": kind,
                "p_account_id": account_id,
                "p_amount": amount,
                "p_type": add_type,
                "p_metadata": noted,
                "p_expires_at": expiry,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )

    @returns_refusals(AdjustCreditsResult)
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
        arguments.check_amount(amount, minimum=1)
        arguments.check_id(user_id)
        arguments.check_key(idempotency_key)
        arguments.check_choice(direction, ("credit", "debit"), name="direction")
        arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
        noted = arguments.check_metadata(metadata)
        return await self._outcome(
            AdjustCreditsResult,
            "ducto_adjust",
            {
                "p_user_id": user_id,
                "p_amount": amount,
                "p_direction": direction,
                "p_metadata": noted,
                "p_min_balance": min_balance,
                "p_force": bool(force),
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )

    @returns_refusals(TransferResult)
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
        arguments.check_amount(amount, minimum=1)
        arguments.check_id(from_user_id, name="from_user_id")
        arguments.check_id(to_user_id, name="to_user_id")
        arguments.check_key(idempotency_key)
        arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
        noted = arguments.check_metadata(metadata)
        if from_user_id == to_user_id:
            raise ArgumentError("to_user_id must be another user than from_user_id.")
        return await self._outcome(
            TransferResult,
            "ducto_transfer",
            {
                "p_from_user_id": from_user_id,
                "p_to_user_id": to_user_id,
                "p_amount": amount,
                "p_metadata": noted,
                "p_min_balance": min_balance,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
        )

    @returns_refusals(RefundResult)
    async def refund_credits(
        self,
        transaction_id: str,
        amount: int | None = None,
        reason: str | None = None,
        metadata: Metadata = None,
        *,
        idempotency_key: str | None = None,
    ) -> RefundResult:
        if amount is not None:
            arguments.check_amount(amount, minimum=1)
        arguments.check_key(idempotency_key)
        arguments.check_optional_id(reason, name="reason")
        noted = arguments.check_metadata(metadata)
        check_transaction_id(transaction_id)
        return await self._outcome(
            RefundResult,
            "ducto_refund",
            {
                "p_transaction_id": transaction_id,
                "p_amount": amount,
                "p_reason": reason,
                "p_metadata": noted,
                "p_idempotency_key": idempotency_key or mint_key(),
            },
            settle=True,
        )

    async def get_transaction(self, transaction_id: str) -> Transaction:
        check_transaction_id(transaction_id)
        found = await self._read(Transaction, "ducto_get_transaction", {"p_transaction_id": transaction_id})
        return without_minted_key(found)

    async def list_transactions(
        self,
        user_id: str | None = None,
        *,
        team_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> TransactionPage:
        arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
        arguments.check_optional_id(user_id, name="user_id")
        arguments.check_optional_id(team_id, name="team_id")
        if user_id is None and team_id is None:
            raise ArgumentError("Give user_id, team_id, or both for a member's rows in the team.")
        check_cursor(cursor)
        page = await self._read(
            TransactionPage,
            "ducto_list_transactions",
            {"p_user_id": user_id, "p_team_id": team_id, "p_cursor": cursor, "p_limit": limit},
        )
        return _shown(page)

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
        first, last = arguments.check_open_window(start, end)
        check_cursor(after)
        asked = {"p_after": after, "p_start": first, "p_end": last, "p_limit": limit}
        return _shown(await self._read(TransactionPage, "ducto_list_ledger", asked, long=True))

    async def list_events(self, after: str | None = None, *, limit: int = 100) -> EventPage:
        arguments.check_int(limit, minimum=1, maximum=1000, name="limit")
        check_cursor(after)
        return await self._read(EventPage, "ducto_list_events", {"p_after": after, "p_limit": limit})


def _shown(page: TransactionPage) -> TransactionPage:
    """The page as the callers wrote its rows."""
    return page.model_copy(update={"transactions": tuple(without_minted_key(each) for each in page.transactions)})
