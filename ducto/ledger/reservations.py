"""Reading a reservation."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime

from ducto import arguments
from ducto.ledger.due import begin, time_for
from ducto.ledger.holds import locate, owned_hold
from ducto.ledger.state import Book, Hold
from ducto.models import Reservation

__all__ = ["described", "get_reservation"]


def get_reservation(book: Book, clock_now: datetime, user_id: str, reservation_id: str) -> Reservation:
    arguments.check_id(user_id)
    account = locate(book, user_id, reservation_id)
    return described(owned_hold(begin(account, time_for(account, clock_now)), user_id, reservation_id))


def described(hold: Hold) -> Reservation:
    return Reservation(
        reservation_id=hold.id,
        user_id=hold.user_id,
        team_id=hold.team_id,
        amount=hold.amount,
        held=hold.money_held,
        allowance_held=hold.allowance_held,
        state=hold.state,
        operation_type=hold.operation_type,
        model=hold.model,
        plan_id=hold.plan_id,
        pricing_version=hold.pricing_version,
        overage=hold.overage,
        min_balance=hold.min_balance,
        max_settle=hold.max_settle,
        grace_seconds=int(hold.grace.total_seconds()),
        transaction_id=hold.transaction_id,
        idempotency_key=hold.key,
        metadata=deepcopy(hold.metadata),
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        ended_at=hold.ended_at,
    )
