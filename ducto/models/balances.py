"""Results about balances and the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from ducto.models.base import Outcome, Row
from ducto.models.caps import CapCheckResult
from ducto.usage import UsageMetrics

__all__ = [
    "AddCreditsResult",
    "AddType",
    "AdjustCreditsResult",
    "AvailableResult",
    "BalanceResult",
    "EventPage",
    "GrantPart",
    "RefundResult",
    "StoredEvent",
    "SweepResult",
    "Transaction",
    "TransactionPage",
    "TransactionType",
    "TransferResult",
]

#: Why credits were added.
AddType = Literal["purchase", "grant", "bonus", "adjustment"]

#: What a ledger row records. `deduction` settles a reservation, `charge` is a direct charge, `allowance` books used
#: allowance without money, `debt_repayment` moves freed expiring credits onto a debt (amount 0), `expiry` removes
#: expired credits.
TransactionType = Literal[
    "purchase",
    "grant",
    "bonus",
    "adjustment",
    "deduction",
    "charge",
    "allowance",
    "refund",
    "expiry",
    "debt_repayment",
    "transfer_out",
    "transfer_in",
]


class BalanceResult(Row):
    """`balance` includes what is held; `lifetime_purchased` is the sum of all added credits of type `purchase`."""

    user_id: str
    balance: int
    lifetime_purchased: int = 0
    #: Until then the answer changes only if somebody writes to the account; `None` where the store cannot say. A bound:
    #: the answer may well stay the same for longer.
    stable_until: datetime | None = Field(default=None, repr=False)


class AvailableResult(Row):
    """`available` is what a new call may take: the balance without what open reservations hold."""

    user_id: str
    balance: int
    held: int
    available: int
    team_id: str | None = None
    #: Until then the answer changes only if somebody writes to the account; `None` where the store cannot say. A bound:
    #: the answer may well stay the same for longer.
    stable_until: datetime | None = Field(default=None, repr=False)


class AddCreditsResult(Outcome):
    transaction_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    amount: int = 0
    new_balance: int = 0
    lifetime_purchased: int = 0


class AdjustCreditsResult(Outcome):
    """`amount` is signed: negative for a debit."""

    transaction_id: str | None = None
    user_id: str | None = None
    amount: int = 0
    new_balance: int = 0


class TransferResult(Outcome):
    transaction_id: str | None = None
    from_user_id: str | None = None
    to_user_id: str | None = None
    amount: int = 0
    from_balance: int = 0
    to_balance: int = 0


class RefundResult(Outcome):
    """`amount` is what returned to the balance, `allowance_restored` what returned to the month's allowance."""

    transaction_id: str | None = None
    refunded_transaction_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    amount: int = 0
    allowance_restored: int = 0
    balance_after: int = 0


class SweepResult(Row):
    """How many accounts and grants had credits expire, and how many credits in all."""

    accounts: int = 0
    grants: int = 0
    amount: int = 0
    dry_run: bool = False


class GrantPart(Row):
    """What one grant has to do with a movement or a hold. A grant is credits of an account that expire together:
    `grant` is its number within the account, `amount` is signed in a movement.
    """

    grant: int
    amount: int
    expires_at: datetime


class Transaction(Row):
    """One row of the ledger, as it was written; rows are never changed.

    `amount` is signed and is what the balance moved by. For a spend, `actual` is what the call cost, `charged` what
    of it was booked (allowance included), `unbilled` the rest: always `charged + unbilled = actual`. `booked_at` is
    when the spend was admitted: the cap windows and the allowance month that it counts in.

    `grant_deltas` are the credits that grants gave (negative) or got, in the order in which they were touched; what of
    `amount` is in none of them moved on the base, the credits that do not expire. `cap_warning` and `cap_notices` are
    what caps said when a direct charge was admitted; those of a settled call are with its reservation.
    """

    transaction_id: str
    sequence: int
    type: TransactionType
    user_id: str | None = None
    team_id: str | None = None
    amount: int
    balance_after: int
    actual: int = 0
    charged: int = 0
    unbilled: int = 0
    allowance_consumed: int = 0
    refunded: int = 0
    reservation_id: str | None = None
    reserved: int | None = None
    refunded_transaction_id: str | None = None
    counterparty: str | None = None
    operation_type: str | None = None
    model: str | None = None
    pricing_version: str | None = None
    plan_id: str | None = None
    usage: UsageMetrics | None = None
    estimated: bool = False
    late: bool = False
    forced: bool = False
    suspect: bool = False
    expires_at: datetime | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    grant_deltas: tuple[GrantPart, ...] = ()
    cap_warning: CapCheckResult | None = None
    cap_notices: tuple[CapCheckResult, ...] = ()
    booked_at: datetime
    created_at: datetime


class TransactionPage(Row):
    """Newest first. `next_cursor` continues the listing; `None` at its end."""

    transactions: tuple[Transaction, ...] = ()
    next_cursor: str | None = None


class StoredEvent(Row):
    """Something that the store recorded, with an id that stays the same however often it is read."""

    id: str
    name: str
    user_id: str | None = None
    team_id: str | None = None
    amount: int = 0
    transaction_id: str | None = None
    reservation_id: str | None = None
    occurred_at: datetime


class EventPage(Row):
    """Oldest first. Pass `next_cursor` as `after` to go on; it is set on every page that has events."""

    events: tuple[StoredEvent, ...] = ()
    next_cursor: str | None = None
