"""Verify: the audit of the books. Every stored number is derived again from rows and open reservations.

Reads only, repairs nothing. What is due and not yet booked is not a fault. The names of the checks are those of
docs/contract.md, and are the same for every store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from ducto.ledger.state import Account, Book, Hold, Row
from ducto.ledger.windows import month_of
from ducto.models import VerifyFault, VerifyResult
from ducto.usage import MAX_AMOUNT

__all__ = ["verify"]

SETTLING = ("deduction",)


def verify(book: Book, now: datetime, *, reaper_period: timedelta = timedelta(days=365)) -> VerifyResult:
    """All faults of all accounts. `reaper_period` is how long a due hold may wait before it counts as stuck."""
    faults = [fault for account in book.accounts.values() for fault in _account_faults(account, now, reaper_period)]
    faults += _totals(book)
    return VerifyResult(ok=not faults, faults=tuple(faults))


def _account_faults(account: Account, now: datetime, reaper_period: timedelta) -> Iterator[VerifyFault]:
    label = f"{account.kind}:{account.id}"
    checks = (
        _chain(account),
        _parts(account),
        _held(account),
        _grants(account),
        _reservations(account),
        _keys(account),
        _refunds(account),
        _bills(account),
        _allowances(account),
        _caps(account),
        _debt(account),
        _members(account),
        _stuck(account, now - reaper_period),
    )
    for check in checks:
        for invariant, expected, found, row in check:
            yield VerifyFault(invariant=invariant, account=label, expected=str(expected), found=str(found), row=row)


Found = tuple[str, object, object, str | None]


def _chain(account: Account) -> Iterator[Found]:
    balance = 0
    for number, row in enumerate(account.rows, start=1):
        if row.sequence != number:
            yield "sequence_gapless", number, row.sequence, row.transaction_id
            return
        balance += row.amount
        if row.balance_after != balance:
            yield "balance_chain", balance, row.balance_after, row.transaction_id
            return
    if account.sequence != len(account.rows):
        yield "sequence_gapless", len(account.rows), account.sequence, None
    if account.balance != balance:
        yield "balance_is_sum", balance, account.balance, None


def _parts(account: Account) -> Iterator[Found]:
    base, grants = 0, defaultdict(int)
    for row in account.rows:
        base += row.base_delta
        for grant_id, delta in row.grant_deltas:
            grants[grant_id] += delta
        moved = row.base_delta + sum(delta for _, delta in row.grant_deltas)
        if moved != row.amount:
            yield "parts_sum_to_amount", row.amount, moved, row.transaction_id
    if base != account.base:
        yield "base_from_rows", base, account.base, None
    for grant_id, grant in account.grants.items():
        if grants[grant_id] != grant.remaining:
            yield f"grant_from_rows[{grant_id}]", grants[grant_id], grant.remaining, None


def _held(account: Account) -> Iterator[Found]:
    holds = account.open.values()
    held = sum(hold.money_held for hold in holds)
    base_held = sum(hold.base_held for hold in holds)
    if account.held != held:
        yield "held_is_open_holds", held, account.held, None
    if account.base_held != base_held:
        yield "base_held_is_open_holds", base_held, account.base_held, None
    of_grants: dict[int, int] = defaultdict(int)
    for hold in holds:
        for grant_id, amount in hold.grant_holds:
            of_grants[grant_id] += amount
        parts = hold.base_held + hold.allowance_held + sum(amount for _, amount in hold.grant_holds)
        if parts != hold.amount:
            yield "hold_parts_sum", hold.amount, parts, hold.id
    for grant_id, grant in account.grants.items():
        if grant.held != of_grants[grant_id]:
            yield f"grant_held_is_open_holds[{grant_id}]", of_grants[grant_id], grant.held, None


def _grants(account: Account) -> Iterator[Found]:
    free = False
    for grant in account.grants.values():
        if not 0 <= grant.held <= grant.remaining <= grant.amount:
            found = f"{grant.held}, {grant.remaining}, {grant.amount}"
            yield f"grant_bounds[{grant.id}]", "0 <= held <= remaining <= amount", found, None
        free = free or grant.free > 0
    # While something is due, the base may still wait for it.
    if account.base < 0 and free and account.next_due_at > account.last_op_at:
        yield "debt_only_without_grants", "base >= 0 or no free grant", account.base, None
    if not -MAX_AMOUNT <= account.balance <= MAX_AMOUNT:
        yield "balance_bounds", "within 2^53-1", account.balance, None


def _reservations(account: Account) -> Iterator[Found]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in account.rows:
        if row.reservation_id is not None and row.type in SETTLING:
            rows[row.reservation_id].append(row)
    for hold_id, settling in rows.items():
        if len(settling) > 1:
            yield "one_row_per_reservation", 1, len(settling), settling[1].transaction_id
        hold = account.open.get(hold_id) or account.ended.get(hold_id)
        if hold is not None and hold.state != "settled":
            yield "settled_has_row", "settled", hold.state, hold_id
    for hold in (*account.open.values(), *account.ended.values()):
        if hold.state == "settled" and hold.id not in rows:
            yield "settled_has_row", "one row", "none", hold.id
        if (hold.id in account.open) != (hold.state == "active"):
            yield "open_is_active", hold.id in account.open, hold.state, hold.id


def _keys(account: Account) -> Iterator[Found]:
    known = {row.transaction_id for row in account.rows}
    seen: dict[tuple[str, str, str], str] = {}
    for row in account.rows:
        if row.key is not None:
            scope = (row.user_id if row.team_id else "", row.type, row.key)
            if scope in seen:
                yield "key_unique", seen[scope], row.transaction_id, row.transaction_id
            seen[scope] = row.transaction_id
    for (_, operation, key), record in account.keys.items():
        target = getattr(record.reply, "transaction_id", None)
        if target is not None and target not in known:
            yield "key_points_at_row", f"a row for {operation} {key!r}", target, None


def _refunds(account: Account) -> Iterator[Found]:
    for sequence, tally in account.refunds.items():
        row = account.rows[sequence - 1]
        if tally.money + tally.allowance > row.charged:
            yield "refunds_at_most_charged", row.charged, tally.money + tally.allowance, row.transaction_id
        money = sum(each.amount for each in account.rows if each.refunds == sequence)
        if money != tally.money:
            yield "refunds_from_rows", money, tally.money, row.transaction_id


def _bills(account: Account) -> Iterator[Found]:
    for row in account.rows:
        if row.charged + row.unbilled != row.actual:
            yield "charged_and_unbilled", row.actual, row.charged + row.unbilled, row.transaction_id
        hold: Hold | None = account.ended.get(row.reservation_id or "")
        if hold is not None and row.charged > hold.max_settle:
            yield "charged_at_most_max_settle", hold.max_settle, row.charged, row.transaction_id


def _allowances(account: Account) -> Iterator[Found]:
    used: dict[int, int] = defaultdict(int)
    held: dict[int, int] = defaultdict(int)
    for row in account.rows:
        used[month_of(row.booked_at)] += row.allowance
    for hold in account.open.values():
        held[month_of(hold.created_at)] += hold.allowance_held
    for month, use in account.allowances.items():
        if use.used != used[month]:
            yield f"allowance_used[{month}]", used[month], use.used, None
        if use.held != held[month]:
            yield f"allowance_held[{month}]", held[month], use.held, None
    for month, amount in used.items():
        if amount and month not in account.allowances:
            yield f"allowance_used[{month}]", amount, 0, None


def _caps(account: Account) -> Iterator[Found]:
    for counter in account.caps:
        name = f"{counter.cap.cap_type}:{counter.cap.model or '*'}"
        rows = [row for row in account.rows if row.charged and counter.covers(row.booked_at, row.model)]
        spent = sum(row.charged for row in rows)
        held = sum(hold.amount for hold in account.open.values() if counter.covers(hold.created_at, hold.model))
        if counter.spent != spent:
            yield f"cap_spent[{name}]", spent, counter.spent, None
        if counter.held != held:
            yield f"cap_held[{name}]", held, counter.held, None


def _debt(account: Account) -> Iterator[Found]:
    """A balance below zero has a row that may lead there: an overage, a forced row, or a floor below zero."""
    if account.balance >= 0:
        return
    for row in account.rows:
        overage = row.reserved is not None and (row.charged > row.reserved or row.late)
        if row.forced or overage or row.amount < 0:
            return
    yield "debt_is_explained", "a spend below zero", account.balance, None


def _members(account: Account) -> Iterator[Found]:
    if account.kind == "user":
        for row in account.rows:
            if row.team_id is not None:
                yield "no_team_row_in_user_ledger", None, row.team_id, row.transaction_id
        return
    spent: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for row in account.rows:
        if row.charged:
            spent[row.user_id] += row.charged
    for hold in account.open.values():
        held[hold.user_id] += hold.amount
    for user_id in {*spent, *held, *account.members}:
        member = account.members.get(user_id)
        found = (0, 0) if member is None else (member.lifetime.spent, member.lifetime.held)
        if found != (spent[user_id], held[user_id]):
            yield f"member_spend[{user_id}]", (spent[user_id], held[user_id]), found, None


def _stuck(account: Account, before: datetime) -> Iterator[Found]:
    for hold in account.open.values():
        if hold.due_at < before:
            yield "no_stuck_hold", f"ended by {hold.due_at.isoformat()}", "active", hold.id


def _totals(book: Book) -> Iterator[VerifyFault]:
    """What was issued, less what was spent and expired, plus what was refunded, is what all balances hold."""
    transfers: dict[str, int] = defaultdict(int)
    moved = 0
    for account in book.accounts.values():
        for row in account.rows:
            moved += row.amount
            if row.type in ("transfer_in", "transfer_out"):
                transfers[row.transaction_id] += row.amount
    balances = sum(account.balance for account in book.accounts.values())
    if moved != balances:
        yield VerifyFault(invariant="issued_less_used", expected=str(moved), found=str(balances))
    for transaction_id, total in transfers.items():
        if total != 0:
            yield VerifyFault(invariant="transfers_sum_to_zero", expected="0", found=str(total), row=transaction_id)
