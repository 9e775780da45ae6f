"""How credits move on an account: the steps that the verbs share.

Credits are taken from grants in the order of their expiry, then from the base, which alone may go below zero (debt).
Credits that come in repay debt first. So the base is negative only while no grant has credits that nobody holds.
"""

from __future__ import annotations

from bisect import insort
from datetime import datetime
from typing import Any

from ducto.ledger import ids
from ducto.ledger.state import Account, Grant, Hold, Row
from ducto.ledger.windows import month_of
from ducto.models import CapCheckResult, TransactionType
from ducto.usage import UsageMetrics

__all__ = [
    "EVENT_OF_TYPE",
    "Deltas",
    "add_grant",
    "credit_base",
    "free_hold",
    "repay_debt",
    "settle_freed",
    "spend_free",
    "write_expiry",
    "write_row",
]

#: What the book's entry of a row is called.
EVENT_OF_TYPE = {
    "purchase": "credits.added",
    "grant": "credits.added",
    "bonus": "credits.added",
    "adjustment": "credits.added",
    "deduction": "credits.deducted",
    "charge": "credits.deducted",
    "allowance": "credits.deducted",
    "refund": "credits.refunded",
    "expiry": "credits.expired",
    "debt_repayment": "credits.debt_repaid",
    "transfer_out": "credits.transferred",
    "transfer_in": "credits.transferred",
}


class Deltas:
    """Which credits one row moves: the base, and grants by id."""

    __slots__ = ("base", "grants")

    def __init__(self) -> None:
        self.base: int = 0
        self.grants: dict[int, int] = {}

    def grant(self, grant_id: int, delta: int) -> None:
        self.grants[grant_id] = self.grants.get(grant_id, 0) + delta

    @property
    def total(self) -> int:
        return self.base + sum(self.grants.values())


def write_row(
    account: Account,
    deltas: Deltas,
    row_type: TransactionType,
    now: datetime,
    *,
    event: str | None = None,
    user_id: str | None = None,
    transaction_id: str | None = None,
    booked_at: datetime | None = None,
    actual: int = 0,
    charged: int = 0,
    allowance: int = 0,
    refunded: int = 0,
    reservation_id: str | None = None,
    reserved: int | None = None,
    refunds: int | None = None,
    counterparty: str | None = None,
    operation_type: str | None = None,
    plan_id: str | None = None,
    late: bool = False,
    forced: bool = False,
    suspect: bool = False,
    expires_at: datetime | None = None,
    floor: int = 0,
    key: str | None = None,
    usage: UsageMetrics | None = None,
    estimated: bool = False,
    model: str | None = None,
    pricing_version: str | None = None,
    metadata: dict[str, Any] | None = None,
    cap_warning: CapCheckResult | None = None,
    cap_notices: tuple[CapCheckResult, ...] = (),
) -> Row:
    """Append the row for `deltas`, which have already been applied. Its number is the next of the account.

    The book's entry is called `event`, else after the type of the row.
    """
    account.sequence = sequence = account.sequence + 1
    base_delta, grant_deltas = deltas.base, tuple(deltas.grants.items()) if deltas.grants else ()
    amount = deltas.total if grant_deltas else base_delta
    if transaction_id is None:
        transaction_id = ids.transaction_id(account.tag, sequence)
    team_id = account.id if account.kind == "team" else None
    if user_id is None:
        user_id = account.id if team_id is None else ""
    # In the order of the fields, since so many names would take longer than all the rest of this function.
    row = Row(
        sequence,
        transaction_id,
        row_type,
        event or EVENT_OF_TYPE[row_type],
        user_id,
        team_id,
        amount,
        base_delta,
        grant_deltas,
        account.balance,
        now,
        now if booked_at is None else booked_at,
        actual,
        charged,
        actual - charged,
        allowance,
        refunded,
        reservation_id,
        reserved,
        refunds,
        counterparty,
        operation_type,
        plan_id,
        late,
        forced,
        suspect,
        expires_at,
        floor,
        key,
        usage,
        estimated,
        model,
        pricing_version,
        metadata,
        cap_warning,
        cap_notices,
    )
    account.rows.append(row)
    account.entries.append(row)
    return row


def spend_free(account: Account, money: int, deltas: Deltas) -> None:
    """Take `money` of what nobody holds: grants by expiry, then the base, below zero if need be."""
    for grant in account.live:
        if money == 0:
            break
        taken = min(grant.free, money)
        if taken > 0:
            grant.remaining -= taken
            deltas.grant(grant.id, -taken)
            money -= taken
    account.base -= money
    deltas.base -= money
    if deltas.grants:
        drop_empty(account)


def drop_empty(account: Account) -> None:
    account.live = [grant for grant in account.live if grant.remaining > 0]


def credit_base(account: Account, money: int, deltas: Deltas) -> None:
    account.base += money
    deltas.base += money


def add_grant(account: Account, amount: int, expires_at: datetime, deltas: Deltas) -> None:
    """A new grant of `amount` expiring credits."""
    grant = Grant(len(account.grants) + 1, amount, amount, 0, expires_at)
    account.grants[grant.id] = grant
    make_live(account, grant)
    deltas.grant(grant.id, amount)
    account.next_due_at = min(account.next_due_at, expires_at)


def make_live(account: Account, grant: Grant) -> None:
    if grant not in account.live:
        insort(account.live, grant, key=lambda each: (each.expires_at, each.id))


def repay_debt(account: Account, now: datetime, *, deltas: Deltas | None = None, at: datetime | None = None) -> None:
    """Move unheld grant credits onto a negative base. Within `deltas` of a row, else as a row of its own, of sum 0."""
    if account.base >= 0 or not account.live:
        return
    instant = now if at is None else at
    moved = Deltas() if deltas is None else deltas
    debt = -account.base
    for grant in account.live:
        taken = min(grant.free, debt) if grant.expires_at > instant else 0
        if taken > 0:
            grant.remaining -= taken
            moved.grant(grant.id, -taken)
            debt -= taken
    repaid = -account.base - debt
    if repaid == 0:
        return
    credit_base(account, repaid, moved)
    drop_empty(account)
    if deltas is None:
        write_row(account, moved, "debt_repayment", now)


def write_expiry(account: Account, grant: Grant, now: datetime) -> None:
    """Book the expiry of what nobody holds of `grant`."""
    deltas = Deltas()
    deltas.grant(grant.id, -grant.free)
    grant.remaining = grant.held
    drop_empty(account)
    write_row(account, deltas, "expiry", now, expires_at=grant.expires_at)


def free_hold(account: Account, hold: Hold) -> None:
    """Take a hold out of every counter. The caller has set its state, and books what the freed credits lead to."""
    del account.open[hold.id]
    account.ended[hold.id] = hold
    account.base_held -= hold.base_held
    account.held -= hold.amount - hold.allowance_held
    for grant_id, amount in hold.grant_holds:
        grant = account.grants[grant_id]
        grant.held -= amount
        account.next_due_at = min(account.next_due_at, grant.expires_at)
    if hold.allowance_held:
        account.allowances[month_of(hold.created_at)].held -= hold.allowance_held
    if hold.team_id is not None:
        member = account.members[hold.user_id]
        member.open_holds -= 1
        member.book(month_of(hold.created_at), held=-hold.amount)
    for counter in account.caps:
        if counter.covers(hold.created_at, hold.model):
            counter.held -= hold.amount


def settle_freed(account: Account, hold: Hold, now: datetime, *, at: datetime | None = None) -> None:
    """Book what the credits freed at `at` by the end of `hold` lead to.

    Those of a grant that has expired meanwhile are gone; the others repay debt.
    """
    instant = now if at is None else at
    for grant_id, _ in hold.grant_holds:
        grant = account.grants[grant_id]
        if grant.expires_at <= instant and grant.free > 0:
            write_expiry(account, grant, now)
    repay_debt(account, now, at=instant)
