"""Random operations on a memory store: after each of them its audit and our own invariants hold."""

from __future__ import annotations

from typing import Any

from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ducto.models import TransactionPage
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from tests.model import operations as ops
from tests.model.invariants import Bookkeeper
from tests.model.machine import StoreMachine
from tests.model.operations import Advance, Operation
from tests.model.run import Answer, Session
from tests.model.settings import SEED, steps


@seed(SEED)
class BooksMachine(StoreMachine):
    def start(self) -> None:
        clock = ManualClock()
        self.store = MemoryStore(clock=clock)
        self.session = Session(self.store, clock)
        self.books = Bookkeeper(self.store._book)
        #: Calls that were answered under a key: verb, arguments, the first answer.
        self.answered: list[tuple[str, Answer]] = []

    async def step(self, operation: Operation) -> None:
        answer = await self.session.apply(operation)
        await self.check(operation.verb, answer)
        self.keep(operation.verb, answer)

    async def check(self, verb: str, answer: Answer) -> None:
        self.books.after(verb, answer)
        audit = await self.store.verify()
        assert audit.ok, audit.faults

    def keep(self, verb: str, answer: Answer) -> None:
        if answer.error is not None or answer.replayed:
            return
        if verb == "prune_reservations" and answer.raw:
            self.answered = [each for each in self.answered if each[0] != "reserve_credits"]
        elif verb == "delete_team":
            gone = answer.arguments["team_id"]
            self.answered = [each for each in self.answered if each[1].arguments.get("team_id") != gone]
        elif answer.arguments.get("idempotency_key") is not None:
            self.answered.append((verb, answer))

    async def advance(self, by: Advance) -> None:
        self.session.advance(by)

    async def again(self, number: int) -> None:
        if not self.answered:
            return
        verb, first = self.answered[number % len(self.answered)]
        before = self.books.state
        answer = await self.session.send(verb, first.arguments)
        await self.check(verb, answer)
        assert self.books.state == before, f"the replay of {verb} wrote something"
        assert comparable(verb, answer) == comparable(verb, first)
        is_replay = first.arguments.get("attempt_id") is None
        assert answer.replayed == is_replay or not isinstance(first.value, dict), "a replay says that it is one"

    async def misuse(self, number: int) -> None:
        """A key that was answered, with another amount (or fingerprint): refused, naming the field."""
        answered = [each for each in self.answered if each[0] != "set_active_pricing"]
        if not answered:
            return
        verb, first = answered[number % len(answered)]
        field = "initial_balance" if verb == "create_team" else "amount"
        amount = first.arguments[field] or 0
        changed: object = amount - 1 if amount > 1 else amount + 1
        changed = "another" if first.arguments.get("fingerprint") else changed
        field = "fingerprint" if first.arguments.get("fingerprint") else field
        before = self.books.state
        answer = await self.session.send(verb, {**first.arguments, field: changed})
        await self.check(verb, answer)
        assert self.books.state == before, f"the misuse of a key of {verb} wrote something"
        assert answer.error == "idempotency_mismatch"
        if answer.raw is not None:
            assert answer.raw.details.mismatch == (field,)

    async def finish(self) -> None:
        """What the ledger shows through its public face is what it has."""
        for (kind, account_id), account in self.store._book.accounts.items():
            if account.deleted:
                continue
            who = {"user_id": account_id} if kind == "user" else {"team_id": account_id}
            found: list[Any] = []
            cursor: str | None = None
            while True:
                page: TransactionPage = await self.store.list_transactions(**who, cursor=cursor, limit=7)
                found += page.transactions
                cursor = page.next_cursor
                if cursor is None:
                    break
            shown = [(row.sequence, row.transaction_id, row.amount, row.balance_after) for row in reversed(found)]
            assert shown == [(row.sequence, row.transaction_id, row.amount, row.balance_after) for row in account.rows]

    @rule(operation=ops.housekeeping)
    def keep_house(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(number=st.integers(0, 63))
    def misuse_a_key(self, number: int) -> None:
        self.run(self.misuse(number))

    @rule(by=ops.advances(backwards=True))
    def move_clock(self, by: Advance) -> None:
        self.run(self.advance(by))


def comparable(verb: str, answer: Answer) -> Any:
    """An answer without what a replay may change: its mark, and what has become of a reservation since."""
    if not isinstance(answer.value, dict):
        return answer.value
    changing = ("replayed", "state") if verb == "reserve_credits" else ("replayed",)
    return {name: value for name, value in answer.value.items() if name not in changing}


TestBooks = BooksMachine.TestCase
TestBooks.settings = steps(0.7)
