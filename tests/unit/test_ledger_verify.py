"""The audit finds each fault: every check has at least one planted here, and names it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ducto.ledger.state import Account, Book, Grant, Member, RefundTally, Row
from ducto.ledger.verify import verify
from ducto.models import SpendCap
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock

START = datetime(2026, 5, 10, 12, tzinfo=UTC)


@dataclass
class Books:
    """A book in which everything occurs: plans, caps, grants, holds, refunds, a transfer, a team."""

    store: MemoryStore
    clock: ManualClock
    team_id: str

    @property
    def book(self) -> Book:
        return self.store._book

    @property
    def ann(self) -> Account:
        return self.book.accounts["user", "ann"]

    @property
    def team(self) -> Account:
        return self.book.accounts["team", self.team_id]

    def row(self, row_type: str) -> int:
        return next(index for index, row in enumerate(self.ann.rows) if row.type == row_type)

    def change(self, row_type: str, **columns: object) -> None:
        """Change a row, as no code may."""
        index = self.row(row_type)
        self.ann.rows[index] = self.ann.rows[index]._replace(**columns)  # type: ignore[arg-type]


@pytest.fixture
async def books() -> Books:
    clock = ManualClock(START)
    store = MemoryStore(clock=clock)
    await store.set_active_pricing({"plans": {"free": {"free_allowance": 20}}, "default_plan": "free"})
    await store.add_credits("ann", 500, "purchase", idempotency_key="pay-1")
    await store.add_credits("ann", 100, "grant", expires_at=START + timedelta(days=3), idempotency_key="gift")
    await store.set_spend_cap(SpendCap(user_id="ann", cap_type="monthly", limit=400))
    first = await store.reserve_credits("ann", 50, "chat", idempotency_key="call-1")
    await store.deduct_credits("ann", str(first.reservation_id), 40, idempotency_key="call-1")
    charge = await store.charge_credits("ann", 30, idempotency_key="direct")
    await store.refund_credits(str(charge.transaction_id), 10, idempotency_key="sorry")
    await store.transfer_credits("ann", "bob", 25, idempotency_key="gift")
    await store.increment_usage_window("bob", "free", 5, idempotency_key="used")
    await store.reserve_credits("ann", 60, "chat", idempotency_key="open")
    made = await store.create_team("red", 300, idempotency_key="red")
    team_id = str(made.team_id)
    await store.add_team_member(team_id, "ann", spend_cap=100)
    await store.deduct_team(team_id, "ann", 15, idempotency_key="pool")
    await store.reserve_credits("ann", 10, "chat", team_id=team_id)
    assert (await store.verify()).ok
    return Books(store, clock, team_id)


def open_hold(books: Books) -> str:
    return next(iter(books.ann.open))


def end_open_hold_unseen(books: Books) -> None:
    books.ann.open[open_hold(books)].state = "settled"


def settle_without_row(books: Books) -> None:
    hold = next(iter(books.ann.ended.values()))
    books.ann.rows = [row for row in books.ann.rows if row.reservation_id != hold.id]


def second_settling_row(books: Books) -> None:
    books.ann.rows.append(books.ann.rows[books.row("deduction")])


def reopen_settled(books: Books) -> None:
    next(iter(books.ann.ended.values())).state = "released"


def steal_key(books: Books) -> None:
    del books.ann.keys["", "charge", "direct"]


def drop_allowance_key(books: Books) -> None:
    del books.book.accounts["user", "bob"].keys["", "allowance", "used"]


def dangling_key(books: Books) -> None:
    record = books.ann.keys["", "charge", "direct"]
    gone = record.reply.model_copy(update={"transaction_id": "txn_gone"})
    books.ann.keys["", "charge", "direct"] = record._replace(reply=gone)


def refund_too_much(books: Books) -> None:
    sequence = books.ann.rows[books.row("charge")].sequence
    books.ann.refunds[sequence] = RefundTally(money=10, allowance=25)


def forget_refund(books: Books) -> None:
    books.ann.refunds.clear()


def refund_other_amount(books: Books) -> None:
    books.ann.refunds[books.ann.rows[books.row("charge")].sequence] = RefundTally(money=9)


def more_than_max_settle(books: Books) -> None:
    next(iter(books.ann.ended.values())).max_settle = 1


def allowance_beyond_plan(books: Books) -> None:
    month = next(iter(books.ann.allowances))
    books.ann.allowances[month].used += 500


def cap_passed(books: Books) -> None:
    counter = books.ann.caps[0]
    counter.cap = counter.cap.model_copy(update={"limit": 10})


def debt_without_reason(books: Books) -> None:
    ann = books.ann
    taken = 10_000
    ann.base -= taken
    ann.sequence += 1
    ann.rows.append(
        Row(
            sequence=ann.sequence,
            transaction_id="txn_planted",
            type="charge",
            event="credits.deducted",
            user_id="ann",
            team_id=None,
            amount=-taken,
            base_delta=-taken,
            grant_deltas=(),
            balance_after=ann.balance,
            created_at=START,
            booked_at=START,
            actual=taken,
            charged=taken,
        )
    )


def hold_into_debt(books: Books) -> None:
    """More is held of the base than there is, and no hold was admitted with such a floor."""
    hold = books.ann.open[open_hold(books)]
    hold.amount += 10_000
    hold.base_held += 10_000
    books.ann.held += 10_000
    books.ann.base_held += 10_000
    books.ann.caps[0].held += 10_000


def team_row_in_user_ledger(books: Books) -> None:
    books.change("charge", team_id="team_x")


def spend_of_nobody(books: Books) -> None:
    del books.team.members["ann"]


def unknown_month_of_member(books: Books) -> None:
    books.team.members["ann"].book(1, spent=3)
    books.team.members["ann"].lifetime.spent -= 3


def idle_member_with_a_call(books: Books) -> None:
    books.team.members["eve"] = Member("eve", "member", None, "lifetime", START, open_holds=1)


def unbalanced_transfer(books: Books) -> None:
    account = books.book.accounts["user", "bob"]
    account.rows[0] = account.rows[0]._replace(amount=24)


def lost_balance(books: Books) -> None:
    books.ann.base += 1


def expired_grant_beyond_amount(books: Books) -> None:
    books.ann.grants[1].amount = 1


def debt_beside_free_grant(books: Books) -> None:
    books.ann.base = -1
    books.ann.grants[1].held = 0


def forget_live_grant(books: Books) -> None:
    books.ann.grants[2] = Grant(2, 5, 5, 0, START + timedelta(days=1))


def too_much(books: Books) -> None:
    books.ann.base = 2**53


def age_hold(books: Books) -> None:
    books.ann.open[open_hold(books)].expires_at = START - timedelta(days=400)


def shift(name: str, by: int = 1) -> Callable[[Books], None]:
    def plant(books: Books) -> None:
        setattr(books.ann, name, getattr(books.ann, name) + by)

    return plant


def change(row_type: str, **columns: object) -> Callable[[Books], None]:
    return lambda books: books.change(row_type, **columns)


def counter(name: str) -> Callable[[Books], None]:
    def plant(books: Books) -> None:
        setattr(books.ann.caps[0], name, getattr(books.ann.caps[0], name) + 1)

    return plant


def use(name: str) -> Callable[[Books], None]:
    def plant(books: Books) -> None:
        month = next(iter(books.ann.allowances.values()))
        setattr(month, name, getattr(month, name) + 1)

    return plant


def hold_amount(books: Books) -> None:
    books.ann.open[open_hold(books)].amount += 1


PLANTED: list[tuple[str, Callable[[Books], None]]] = [
    ("sequence_gapless", lambda books: books.ann.rows.pop(2)),  # type: ignore[list-item, return-value]
    ("sequence_gapless", shift("sequence")),
    ("balance_chain", change("charge", balance_after=1)),
    ("balance_is_sum", lost_balance),
    ("parts_sum_to_amount", change("charge", base_delta=-1)),
    ("sign_of_type", change("purchase", amount=-500)),
    ("purchased_from_rows", shift("lifetime_purchased")),
    ("base_from_rows", shift("base")),
    ("grant_from_rows[1]", lambda books: setattr(books.ann.grants[1], "remaining", 7)),
    ("held_is_open_holds", shift("held")),
    ("base_held_is_open_holds", shift("base_held")),
    ("hold_parts_sum", hold_amount),
    ("grant_held_is_open_holds[1]", lambda books: setattr(books.ann.grants[1], "held", 0)),
    ("grant_bounds[1]", expired_grant_beyond_amount),
    ("live_grants", forget_live_grant),
    ("debt_only_without_grants", debt_beside_free_grant),
    ("balance_bounds", too_much),
    ("one_row_per_reservation", second_settling_row),
    ("settled_has_row", settle_without_row),
    ("settled_has_row", reopen_settled),
    ("open_is_active", end_open_hold_unseen),
    ("key_unique", steal_key),
    ("key_unique", drop_allowance_key),
    ("key_points_at_row", change("charge", key="pay-1")),
    ("key_points_at_row", dangling_key),
    ("refunds_at_most_charged", refund_too_much),
    ("refunds_from_rows", forget_refund),
    ("refunds_from_rows", refund_other_amount),
    ("refund_to_who_paid", change("refund", user_id="eve")),
    ("charged_and_unbilled", change("charge", unbilled=1)),
    ("amount_is_charged_money", change("charge", charged=29, actual=29)),
    ("charged_at_most_max_settle", more_than_max_settle),
    ("allowance_used[", use("used")),
    ("allowance_used[", lambda books: books.ann.allowances.clear()),
    ("allowance_held[", use("held")),
    ("allowance_within_plan[", allowance_beyond_plan),
    ("cap_spent[monthly:*]", counter("spent")),
    ("cap_held[monthly:*]", counter("held")),
    ("cap_excess_is_explained[monthly:*]", cap_passed),
    ("debt_is_explained", debt_without_reason),
    ("debt_is_explained", hold_into_debt),
    ("no_team_row_in_user_ledger", team_row_in_user_ledger),
    ("member_spend[ann]", spend_of_nobody),
    ("member_spend[ann, 1]", unknown_month_of_member),
    ("member_open_holds[eve]", idle_member_with_a_call),
    ("no_stuck_hold", age_hold),
    ("issued_less_used", lost_balance),
    ("transfers_sum_to_zero", unbalanced_transfer),
]


@pytest.mark.parametrize(
    ("invariant", "plant"), PLANTED, ids=[f"{number}-{name}" for number, (name, _) in enumerate(PLANTED)]
)
async def test_the_audit_names_the_planted_fault(books: Books, invariant: str, plant: Callable[[Books], None]) -> None:
    plant(books)
    audit = await books.store.verify()
    assert not audit.ok
    found = [fault for fault in audit.faults if fault.invariant.startswith(invariant)]
    assert found, [fault.invariant for fault in audit.faults]
    assert found[0].expected != found[0].found


def test_every_check_has_a_planted_fault() -> None:
    source = Path(inspect.getsourcefile(verify) or "").read_text()
    names = set(re.findall(r"yield f?\"(\w+)", source)) | set(re.findall(r"invariant=\"(\w+)", source))
    assert len(names) > 30
    assert names == {re.split(r"\[", name)[0] for name, _ in PLANTED}


async def test_the_audit_repairs_nothing(books: Books) -> None:
    lost_balance(books)
    first = await books.store.verify()
    assert await books.store.verify() == first


async def test_what_is_due_is_no_fault(books: Books) -> None:
    books.clock.advance(20 * 86_400)
    assert (await books.store.verify()).ok
    assert verify(books.book, books.clock() + timedelta(days=400)).faults[0].invariant == "no_stuck_hold"


async def test_what_was_allowed_is_no_fault(books: Books) -> None:
    """Debt and passed caps that a policy, an operator or a floor allowed are explained."""
    store = books.store
    await store.charge_credits("eve", 50, min_balance=-50)
    await store.charge_credits("dan", 80, force=True)
    held = await store.reserve_credits("ann", 10, "chat")
    await store.deduct_credits("ann", str(held.reservation_id), 5_000)
    await store.set_spend_cap(SpendCap(user_id="ann", cap_type="daily", limit=1))
    await store.adjust_credits("bob", 900, direction="debit", force=True)
    assert (await store.get_balance("ann")).balance < 0
    audit = await store.verify()
    assert audit.ok, audit.faults


def test_an_empty_book_is_sound() -> None:
    assert verify(Book(), START).ok
