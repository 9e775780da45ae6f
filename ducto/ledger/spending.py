"""Booking a spend: the writes that settling a reservation and charging directly share."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from ducto import arguments
from ducto.errors import CreditOverflowError
from ducto.ledger.admission import Party, check_debt
from ducto.ledger.cap_counters import CapFindings, book_spend, check_room
from ducto.ledger.movement import Deltas, repay_debt, write_row
from ducto.ledger.state import Row
from ducto.ledger.windows import month_of
from ducto.models import Metadata, TransactionType
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["Notes", "book", "check_notes", "check_overflow", "warning_of"]


class Notes(NamedTuple):
    """What a spend's row records besides the money: never compared, never read by a rule."""

    usage: UsageMetrics | None
    estimated: bool
    model: str | None
    pricing_version: str | None
    metadata: dict[str, Any] | None


def check_notes(
    usage: UsageMetrics | None,
    estimated: bool,
    model: str | None,
    pricing_version: str | None,
    metadata: Metadata,
) -> Notes:
    arguments.check_usage(usage)
    arguments.check_optional_id(model, name="model")
    arguments.check_optional_id(pricing_version, name="pricing_version")
    return Notes(usage, bool(estimated), model, pricing_version, arguments.check_metadata(metadata))


def check_overflow(party: Party, admitted_at: datetime, model: str | None, money: int, charged: int) -> None:
    """Refuse a spend that a balance or a counter could not hold, before anything is written."""
    account, _, _, member = party
    check_debt(account, money)
    if member is not None and member.lifetime.spent > MAX_AMOUNT - charged:
        raise CreditOverflowError("The member's spend would exceed 2^53-1 credits.")
    check_room(account, admitted_at, model, charged)


def book(
    party: Party,
    row_type: TransactionType,
    deltas: Deltas,
    now: datetime,
    *,
    booked_at: datetime,
    actual: int,
    charged: int,
    allowance: int,
    notes: Notes,
    **columns: Any,
) -> Row:
    """Count a spend where it was admitted and write its row. `deltas` has what was taken; the debt is repaid here."""
    account, user_id, _, member = party
    month = month_of(booked_at)
    if allowance:
        account.allowance_use(month).used += allowance
    if member is not None:
        member.book(month, spent=charged)
    book_spend(account, booked_at, notes.model, charged)
    repay_debt(account, now, deltas=deltas)
    return write_row(
        account,
        deltas,
        row_type,
        now,
        user_id=user_id,
        booked_at=booked_at,
        actual=actual,
        charged=charged,
        unbilled=actual - charged,
        allowance=allowance,
        usage=notes.usage,
        estimated=notes.estimated,
        model=notes.model,
        pricing_version=notes.pricing_version,
        metadata=notes.metadata,
        **columns,
    )


def warning_of(findings: CapFindings | None) -> dict[str, Any]:
    """The fields of a result that tell of caps."""
    return {} if findings is None else {"cap_warning": findings.warning, "cap_notices": findings.notices}
