"""Booking a spend: the writes that settling a reservation and charging directly share."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ducto import arguments
from ducto.errors import CreditOverflowError
from ducto.ledger.admission import check_debt
from ducto.ledger.cap_counters import check_room, count_in_caps
from ducto.ledger.movement import Deltas, repay_debt
from ducto.ledger.state import Account, Member
from ducto.ledger.windows import month_of
from ducto.models import Metadata
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = ["check_notes", "check_overflow", "count_spend"]


def check_notes(
    usage: UsageMetrics | None, model: str | None, pricing_version: str | None, metadata: Metadata
) -> dict[str, Any] | None:
    """Check what a row records besides the money; the metadata as they are kept."""
    arguments.check_usage(usage)
    if model is not None:
        arguments.check_id(model, name="model")
    if pricing_version is not None:
        arguments.check_id(pricing_version, name="pricing_version")
    return arguments.check_metadata(metadata)


def check_overflow(
    account: Account, member: Member | None, admitted_at: datetime, model: str | None, money: int, charged: int
) -> None:
    """Refuse a spend that a balance or a counter could not hold, before anything is written."""
    check_debt(account, money)
    if member is not None and member.lifetime.spent > MAX_AMOUNT - charged:
        raise CreditOverflowError("The member's spend would exceed 2^53-1 credits.")
    if account.caps:
        check_room(account, admitted_at, model, charged)


def count_spend(
    account: Account,
    member: Member | None,
    deltas: Deltas,
    now: datetime,
    admitted_at: datetime,
    model: str | None,
    charged: int,
    allowance: int,
) -> None:
    """Count a spend where it was admitted, and repay debt. `deltas` has what was taken; the caller writes the row."""
    if allowance:
        account.allowance_use(month_of(admitted_at)).used += allowance
    if member is not None:
        member.book(month_of(admitted_at), spent=charged)
    if account.caps:
        count_in_caps(account, admitted_at, model, charged)
    repay_debt(account, now, deltas=deltas)
