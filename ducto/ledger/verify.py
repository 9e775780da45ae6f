"""Verify: the audit of the books. Every stored number is derived again from rows and open reservations.

Reads only, repairs nothing. What is due and not yet booked is not a fault. The names of the checks are those of
docs/contract.md, and are the same for every store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from ducto.ledger.state import Account, Book, CapCounter, Row
from ducto.ledger.windows import month_of
from ducto.models import VerifyFault, VerifyResult
from ducto.usage import MAX_AMOUNT

__all__ = ["verify"]

SPENDS = ("deduction", "charge")
#: The sign that the amount of a row has by its type; those that are not named may have either.
SIGNS = {
    "purchase": 1,
    "grant": 1,
    "bonus": 1,
    "deduction": -1,
    "charge": -1,
    "allowance": 0,
    "refund": 1,
    "expiry": -1,
    "debt_repayment": 0,
    "transfer_out": -1,
    "transfer_in": 1,
}


def verify(book: Book, now: datetime, *, reaper_period: timedelta = timedelta(days=365)) -> VerifyResult:
    """All faults of all accounts. `reaper_period` is how long a due hold may wait before it counts as stuck."""
    stuck_before = now - reaper_period
    allowance = _largest_allowance(book)
    faults = [
        fault
        for account in book.accounts.values()
        for fault in _account_faults(account, stuck_before=stuck_before, allowance=allowance)
    ]
    faults += _totals(book)
    return VerifyResult(ok=not faults, faults=tuple(faults))


def _largest_allowance(book: Book) -> int:
    """The most that any published plan has ever given for a month: plans, and who is on them, change meanwhile."""
    plans = (plan for version in book.pricing for plan in version.config.plans.values())
    return max((plan.free_allowance for plan in plans), default=0)


def _account_faults(account: Account, *, stuck_before: datetime, allowance: int) -> Iterator[VerifyFault]:
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
        _allowances(account, allowance),
        _caps(account),
        _debt(account),
        _members(account),
        _stuck(account, stuck_before),
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
    base = 0
    grants: dict[int, int] = defaultdict(int)
    for row in account.rows:
        base += row.base_delta
        for grant_id, delta in row.grant_deltas:
            grants[grant_id] += delta
        moved = row.base_delta + sum(delta for _, delta in row.grant_deltas)
        if moved != row.amount:
            yield "parts_sum_to_amount", row.amount, moved, row.transaction_id
        sign = SIGNS.get(row.type)
        if (sign is not None and row.amount * sign < 0) or (sign == 0 and row.amount != 0):
            yield "sign_of_type", f"{row.type}: {sign}", row.amount, row.transaction_id
    purchased = sum(row.amount for row in account.rows if row.type == "purchase")
    if purchased != account.lifetime_purchased:
        yield "purchased_from_rows", purchased, account.lifetime_purchased, None
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
    spendable = [grant.id for grant in account.grants.values() if grant.remaining > 0]
    spendable.sort(key=lambda grant_id: (account.grants[grant_id].expires_at, grant_id))
    if spendable != [grant.id for grant in account.live]:
        yield "live_grants", spendable, [grant.id for grant in account.live], None
    if account.base < 0 and free:
        yield "debt_only_without_grants", "base >= 0 or no free grant", account.base, None
    if not -MAX_AMOUNT <= account.balance <= MAX_AMOUNT:
        yield "balance_bounds", "within 2^53-1", account.balance, None


def _reservations(account: Account) -> Iterator[Found]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in account.rows:
        if row.reservation_id is not None and row.type == "deduction":
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
    """Each stored answer points at a row with its key, and no keyed row is without one: so no key has two rows."""
    keys = {row.transaction_id: row.key for row in account.rows}
    answered: set[str] = set()
    for (_, operation, key), record in account.keys.items():
        target = getattr(record.reply, "transaction_id", None)
        if target is None:
            continue
        if keys.get(target) != key:
            yield "key_points_at_row", f"a row for {operation} {key!r}", target, None
        answered.add(target)
    counted: set[str] = set()
    for row in account.rows:
        # The key of a new team's first row is kept beside the accounts.
        if row.key is None or (account.kind == "team" and row.sequence == 1 and row.type == "grant"):
            continue
        if row.type == "allowance":  # Its answer is empty.
            known = row.key not in counted and ("", "allowance", row.key) in account.keys
            counted.add(row.key)
        else:
            known = row.transaction_id in answered
        if not known:
            yield "key_unique", f"one answer under {row.key!r}", "a row that is not of it", row.transaction_id


def _refunds(account: Account) -> Iterator[Found]:
    for sequence, tally in account.refunds.items():
        row = account.rows[sequence - 1]
        if tally.money + tally.allowance > row.charged:
            yield "refunds_at_most_charged", row.charged, tally.money + tally.allowance, row.transaction_id
        money = sum(each.amount for each in account.rows if each.refunds == sequence)
        if money != tally.money:
            yield "refunds_from_rows", money, tally.money, row.transaction_id
    for row in account.rows:
        if row.refunds is None:
            continue
        if row.refunds not in account.refunds:
            yield "refunds_from_rows", row.amount, 0, row.transaction_id
        if row.user_id != account.rows[row.refunds - 1].user_id:
            yield "refund_to_who_paid", account.rows[row.refunds - 1].user_id, row.user_id, row.transaction_id


def _bills(account: Account) -> Iterator[Found]:
    for row in account.rows:
        if row.charged + row.unbilled != row.actual:
            yield "charged_and_unbilled", row.actual, row.charged + row.unbilled, row.transaction_id
        due = row.refunded + row.allowance if row.type == "refund" else row.allowance - row.charged
        if row.type in (*SPENDS, "allowance", "refund") and row.amount != due:
            yield "amount_is_charged_money", due, row.amount, row.transaction_id
        hold = account.ended.get(row.reservation_id or "")
        if hold is not None and row.charged > hold.max_settle:
            yield "charged_at_most_max_settle", hold.max_settle, row.charged, row.transaction_id


def _allowances(account: Account, most: int) -> Iterator[Found]:
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
        if not 0 <= use.used + use.held <= most:
            yield f"allowance_within_plan[{month}]", f"0 to {most}", use.used + use.held, None
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
        if counter.cap.action == "deny":
            allowed = max(counter.cap.limit, counter.inherited)
            allowed += sum(_beyond_cap(account, counter, row) for row in rows)
            if counter.spent + counter.held > allowed:
                yield f"cap_excess_is_explained[{name}]", f"at most {allowed}", counter.spent + counter.held, None


def _beyond_admission(row: Row) -> int:
    """What a spend charged without having been admitted: by force, late, or more than was reserved."""
    if row.forced or row.late:
        return max(row.charged, -row.amount)  # A forced adjustment has no charge.
    return 0 if row.reserved is None else max(0, row.charged - row.reserved)


def _beyond_cap(account: Account, counter: CapCounter, row: Row) -> int:
    """Besides, caps do not refuse use that is booked as allowance, nor a call that ran on another model."""
    hold = account.ended.get(row.reservation_id or "")
    moved = row.reservation_id is not None and (hold is None or not counter.covers(hold.created_at, hold.model))
    return row.charged if moved or row.type == "allowance" else _beyond_admission(row)


def _debt(account: Account) -> Iterator[Found]:
    """The base never falls below the lowest floor that anything was admitted with, save by what was not admitted.

    Only the base can be in debt. What is held of it counts as gone, as it did when it was admitted.
    """
    base = floor = unadmitted = 0
    for row in account.rows:
        base += row.base_delta
        floor = min(floor, row.floor)
        unadmitted += _beyond_admission(row)
        if base < floor - unadmitted:
            yield "debt_is_explained", f"at least {floor - unadmitted}", base, row.transaction_id
            return
    floor = min([floor, *(hold.min_balance for hold in account.open.values())])
    if account.base - account.base_held < floor - unadmitted:
        yield "debt_is_explained", f"at least {floor - unadmitted}", account.base - account.base_held, None


def _members(account: Account) -> Iterator[Found]:
    if account.kind == "user":
        for row in account.rows:
            if row.team_id is not None:
                yield "no_team_row_in_user_ledger", None, row.team_id, row.transaction_id
        return
    spent: dict[tuple[str, int | None], int] = defaultdict(int)
    held: dict[tuple[str, int | None], int] = defaultdict(int)
    for row in account.rows:
        if row.charged:
            spent[row.user_id, None] += row.charged
            spent[row.user_id, month_of(row.booked_at)] += row.charged
    for hold in account.open.values():
        held[hold.user_id, None] += hold.amount
        held[hold.user_id, month_of(hold.created_at)] += hold.amount
    found = {
        (user_id, month): (use.spent, use.held)
        for user_id, member in account.members.items()
        for month, use in ((None, member.lifetime), *member.months.items())
    }
    for who in {*spent, *held, *found}:
        expected = (spent[who], held[who])
        if found.get(who, (0, 0)) != expected:
            window = "" if who[1] is None else f", {who[1]}"
            yield f"member_spend[{who[0]}{window}]", expected, found.get(who, (0, 0)), None
    for user_id, member in account.members.items():
        holds = sum(hold.user_id == user_id for hold in account.open.values())
        if member.open_holds != holds:
            yield f"member_open_holds[{user_id}]", holds, member.open_holds, None


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
