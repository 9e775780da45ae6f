"""What must hold of the memory store's books after every step, written from the contract.

This is on purpose a second statement of the rules: it shares nothing with the store's own audit, it looks at each
operation together with its answer, and it keeps its own account of what came in and went out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ducto.ledger.state import Account, Book, Row
from tests.model.operations import CHANGING
from tests.model.run import Answer

__all__ = ["Bookkeeper", "snapshot"]


def snapshot(book: Book) -> tuple[object, ...]:
    """All that a refused call, a replay or a read must leave as it is."""
    return (
        len(book.entries),
        len(book.pricing),
        None if book.active_pricing is None else book.active_pricing.id,
        len(book.team_keys),
        tuple(_account_state(account) for account in book.accounts.values()),
    )


def _account_state(account: Account) -> tuple[object, ...]:
    return (
        account.id,
        account.deleted,
        account.plan_id,
        account.last_op_at,
        (account.base, account.base_held, account.held, account.sequence, account.lifetime_purchased),
        (len(account.rows), len(account.keys), account.holds_made),
        tuple((each.id, each.remaining, each.held) for each in account.grants.values()),
        tuple((each.id, each.expires_at) for each in account.open.values()),
        tuple((each.id, each.state) for each in account.ended.values()),
        tuple((each.cap, each.start, each.spent, each.held) for each in account.caps),
        tuple((month, use.used, use.held) for month, use in account.allowances.items()),
        tuple(
            (each.user_id, each.role, each.spend_cap, each.is_member, each.lifetime.spent, each.lifetime.held)
            for each in account.members.values()
        ),
        tuple((sequence, tally.money, tally.allowance) for sequence, tally in account.refunds.items()),
    )


class Bookkeeper:
    """Watches one memory store: `before` a call, and `after` it with its answer."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.state = snapshot(book)
        self.rows: dict[tuple[str, str], list[Row]] = {}
        #: Net of what the answers said came in and went out.
        self.moved = 0
        #: For each account the lowest floor that was asked for, and the sum of what was charged without being admitted.
        self.lowest_floor: dict[tuple[str, str], int] = defaultdict(int)
        self.unadmitted: dict[tuple[str, str], int] = defaultdict(int)
        self.reservations: dict[str, Mapping[str, Any]] = {}

    def after(self, verb: str, answer: Answer) -> None:
        """Check everything, for the call and for the books as they are now."""
        state = snapshot(self.book)
        asked_again = (
            verb == "reserve_credits" and answer.raw is not None and answer.raw.reservation_id in self.reservations
        )
        if asked_again and answer.error is None:
            own = self.reservations[answer.raw.reservation_id]["attempt_id"] or "nobody's"
            assert answer.replayed == (answer.arguments["attempt_id"] != own), f"whose reservation is it? {answer}"
        unwritten = answer.error is not None or answer.replayed or asked_again
        if unwritten or verb not in CHANGING or answer.arguments.get("dry_run"):
            assert state == self.state, f"{verb} changed the books: {answer}"
        elif answer.raw is not None:
            self._count(verb, answer)
            self._check_answer(verb, answer)
        self.state = state
        balances = expired = 0
        for where, account in self.book.accounts.items():
            self._check_ledger(where, account)
            self._check_debt(where, account)
            balances += account.balance
            expired += sum(row.amount for row in account.rows if row.type == "expiry")
        assert balances == self.moved + expired, "credits appeared or vanished"

    def _count(self, verb: str, answer: Answer) -> None:
        raw, sent = answer.raw, answer.arguments
        where = ("team", sent["team_id"]) if sent.get("team_id") else ("user", str(sent.get("user_id")))
        if verb in ("add_credits", "add_team_credits", "adjust_credits", "refund_credits"):
            self.moved += raw.amount
        elif verb == "create_team":
            self.moved += raw.balance
        elif verb in ("charge_credits", "deduct_credits", "deduct_team"):
            self.moved -= raw.amount
        if verb == "transfer_credits":
            where = ("user", sent["from_user_id"])
        if "min_balance" in sent:
            self.lowest_floor[where] = min(self.lowest_floor[where], sent["min_balance"])
        if sent.get("force"):
            self.unadmitted[where] += sent["amount"]
        if verb == "reserve_credits":
            self.reservations[raw.reservation_id] = sent
        if verb == "deduct_credits":
            team_id = raw.team_id
            payer = ("user", raw.user_id) if team_id is None else ("team", team_id)
            self.unadmitted[payer] += raw.overage + (raw.actual - raw.unbilled if raw.late else 0)

    def _check_answer(self, verb: str, answer: Answer) -> None:
        raw, sent = answer.raw, answer.arguments
        if verb == "deduct_credits":
            self._check_deduction(raw)
        if verb == "reserve_credits":
            assert 0 <= raw.held <= raw.amount == sent["amount"]
            assert raw.available >= (sent["min_balance"] if raw.held else min(0, sent["min_balance"]))
            limit = sent["max_concurrent"]
            assert limit is None or self._open_holds(raw.team_id, raw.user_id) <= limit
        if verb in ("charge_credits", "deduct_team") and not sent["force"]:
            floor = sent["min_balance"]
            assert raw.available >= (floor if raw.amount else min(0, floor))
        admitted = verb == "reserve_credits" or (verb == "charge_credits" and not sent["force"])
        if admitted and sent["amount"] and sent.get("team_id") is None:
            self._check_caps(sent["user_id"], sent["model"])

    def _open_holds(self, team_id: str | None, user_id: str) -> int:
        account = self.book.accounts["user", user_id] if team_id is None else self.book.accounts["team", team_id]
        return sum(hold.user_id == user_id for hold in account.open.values())

    def _check_deduction(self, raw: Any) -> None:
        asked = self.reservations[raw.reservation_id]
        charged = raw.amount + raw.allowance_consumed
        assert min(raw.amount, raw.allowance_consumed, raw.unbilled) >= 0
        assert charged + raw.unbilled == raw.actual
        reserved = 0 if raw.late else asked["amount"]
        most = asked["max_settle"] if asked["max_settle"] is not None else max(10 * asked["amount"], 1_000_000)
        assert charged <= most
        assert raw.suspect == (raw.actual > most)
        assert raw.overage == max(0, charged - reserved)
        if asked["overage"] == "debt":
            assert charged == min(raw.actual, most)
        if asked["overage"] == "reject":
            assert raw.actual <= reserved
        if asked["overage"] == "clamp" and raw.overage > raw.allowance_consumed:
            assert raw.available >= asked["min_balance"]

    def _check_caps(self, user_id: str, model: str | None) -> None:
        """Right after an admission no denying cap is exceeded: counted here from rows and open holds."""
        account = self.book.accounts["user", user_id]
        for counter in account.caps:
            cap = counter.cap
            if cap.action != "deny" or cap.model not in (None, model):
                continue
            start = _window_start(cap.cap_type, account.last_op_at)
            rows = [row for row in account.rows if row.booked_at >= start and cap.model in (None, row.model)]
            holds = [each for each in account.open.values() if each.created_at >= start]
            held = sum(hold.amount for hold in holds if cap.model in (None, hold.model))
            assert sum(row.charged for row in rows) + held <= cap.limit, f"{cap} was passed"

    def _check_ledger(self, where: tuple[str, str], account: Account) -> None:
        known = self.rows.get(where, [])
        rows = account.rows
        assert rows[: len(known)] == known, "a ledger row was changed or removed"
        balance = known[-1].balance_after if known else 0
        for number in range(len(known), len(rows)):
            balance += rows[number].amount
            assert rows[number].sequence == number + 1
            assert rows[number].balance_after == balance
        if len(rows) > len(known):
            self.rows[where] = list(rows)
        assert balance == account.base + sum(grant.remaining for grant in account.grants.values())
        assert account.held == sum(hold.amount - hold.allowance_held for hold in account.open.values())
        for grant in account.grants.values():
            assert 0 <= grant.held <= grant.remaining <= grant.amount
            assert account.base >= 0 or grant.free == 0, "debt beside credits that are free"

    def _check_debt(self, where: tuple[str, str], account: Account) -> None:
        allowed = self.lowest_floor[where] - self.unadmitted[where]
        assert account.base - account.base_held >= allowed, f"{where} is in debt without a reason"


def _window_start(cap_type: str, instant: datetime) -> datetime:
    hour = instant - timedelta(minutes=instant.minute, seconds=instant.second, microseconds=instant.microsecond)
    if cap_type == "hourly":
        return hour
    day = hour - timedelta(hours=hour.hour)
    return day if cap_type == "daily" else day - timedelta(days=day.day - 1)
