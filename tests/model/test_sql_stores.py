"""The same operations to the memory store and to a SQL store: every answer is the same, word for word.

The memory store runs the rules of `ducto.ledger`, so that this compares the SQL functions with them. Both stores see
the same clock. Calls also go many at a time, as batches; one account's calls keep their order then, so that the memory
store can be sent the same calls one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from tests.model import operations as ops
from tests.model import wider_operations as wider
from tests.model.machine import StoreMachine
from tests.model.operations import Advance, Operation
from tests.model.run import Answer, Session
from tests.model.settings import COMPARED, SEED, SQL_STEPS, examples
from tests.model.sql_stores import SqlSide, open_side


class ComparingMachine(StoreMachine):
    """Two sessions, memory and SQL. A subclass names the SQL store, which all examples share, and its loop."""

    name: ClassVar[str]
    side: ClassVar[SqlSide]
    shared_loop: ClassVar[asyncio.AbstractEventLoop]

    def open_loop(self) -> asyncio.AbstractEventLoop:
        return self.shared_loop

    def close_loop(self) -> None:
        """It is shared."""

    def start(self) -> None:
        self.clock = ManualClock()
        self.latest = self.clock()
        self.pruned = False
        self.loop.run_until_complete(self.side.start(self.clock()))
        self.store = MemoryStore(clock=self.clock)
        self.memory = Session(self.store, self.clock)
        self.sql = Session(self.side.store, self.clock)
        #: Calls under a key: verb, what memory answered, what SQL answered.
        self.keyed: list[tuple[str, Answer, Answer]] = []
        for user_id, amount in wider.PLAIN_USERS.items():
            self.run(self.step(Operation("add_credits", {"user_id": user_id, "amount": amount, "type": "purchase"})))

    async def step(self, operation: Operation) -> None:
        memory = await self.memory.apply(operation)
        self.compare(operation.verb, memory, await self.sql.apply(operation))

    async def together(self, operations: Sequence[Operation]) -> None:
        operations = self.without_races(operations)
        memory = await self.memory.apply_in_turn(operations)
        sql = await self.sql.apply_together(operations)
        for operation, one, other in zip(operations, memory, sql, strict=True):
            self.compare(operation.verb, one, other)

    def without_races(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """One call at most for a user without a row. The row is not made within a batch but by a call that waits, so
        that of several calls any may come first.
        """
        kept: list[Operation] = []
        coming: set[str] = set()
        for operation in operations:
            user_id = operation.arguments.get("user_id")
            if operation.verb in ("reserve_credits", "charge_credits") and operation.arguments.get("team_id") is None:
                if ("user", user_id) not in self.store._book.accounts and user_id in coming:
                    continue
                coming.add(str(user_id))
            kept.append(operation)
        return kept

    async def again(self, number: int, **changed: Any) -> None:
        if self.keyed:
            verb, memory, sql = self.keyed[number % len(self.keyed)]
            await self.resend(verb, memory, sql, changed)

    async def misuse(self, number: int) -> None:
        """A key that was used, with another amount."""
        candidates = [each for each in self.keyed if "amount" in each[1].arguments]
        if candidates:
            verb, memory, sql = candidates[number % len(candidates)]
            await self.resend(verb, memory, sql, {"amount": (memory.arguments["amount"] or 0) + 1})

    async def resend(self, verb: str, memory: Answer, sql: Answer, changed: dict[str, Any]) -> None:
        answer = await self.memory.send(verb, {**memory.arguments, **changed})
        self.compare(verb, answer, await self.sql.send(verb, {**sql.arguments, **changed}))

    def compare(self, verb: str, memory: Answer, sql: Answer) -> None:
        COMPARED[self.name] += 1
        if in_order(memory.value) != in_order(sql.value) or memory.error != sql.error:
            raise AssertionError(
                f"{verb} at {self.clock()} with {dict(memory.arguments)}\n"
                f"memory answers: {memory.error} {memory.value}\n"
                f"{self.name} answers: {sql.error} {sql.value}\n"
                f"differing: {differences(memory.value, sql.value)}"
            )
        self.pruned |= verb == "prune_reservations" and memory.value > 0
        if memory.arguments.get("idempotency_key") is not None:
            self.keyed.append((verb, memory, sql))

    async def advance(self, by: Advance) -> None:
        self.latest = max(self.latest, self.clock.advance(by.seconds))
        await self.side.set_clock(self.clock())

    async def finish(self) -> None:
        """Both books are sound, and show the same through all that lists them."""
        for operation in wider.everything(self.memory.minted["team"]):
            await self.step(operation)
        memory, sql = [
            events(await all_events(session), with_reserved=not self.pruned) for session in (self.memory, self.sql)
        ]
        assert memory == sql, f"events of memory and of {self.name} differ: {differences(memory, sql)}"
        for session in (self.memory, self.sql):
            audit = await session.store.verify()
            assert audit.ok, (session.store, audit.faults)

    @rule(operation=wider.housekeeping)
    def keep_house(self, operation: Operation) -> None:
        """At the latest time there was: SQL looks for what is due by the clock, memory by the time of each account."""
        if self.clock() < self.latest:
            self.run(self.advance(Advance(round((self.latest - self.clock()).total_seconds()))))
        self.run(self.step(operation))

    @rule(operations=wider.batches)
    def all_at_once(self, operations: Sequence[Operation]) -> None:
        self.run(self.together(operations))

    @rule(operations=wider.batches)
    def more_at_once(self, operations: Sequence[Operation]) -> None:
        self.run(self.together(operations))

    @rule(batches=wider.holds_and_settles)
    def hold_and_settle_at_once(self, batches: Sequence[Sequence[Operation]]) -> None:
        for operations in batches:
            self.run(self.together(operations))

    @rule(operation=wider.noted)
    def write_with_notes(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=wider.lookups)
    def look_up(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=wider.versions)
    def change_version(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(number=st.integers(0, 63))
    def misuse_a_key(self, number: int) -> None:
        self.run(self.misuse(number))

    @rule(by=ops.advances(backwards=True))
    def move_clock(self, by: Advance) -> None:
        self.run(self.advance(by))


def in_order(value: Any) -> Any:
    """What the reaper ended, by account and expiry: between accounts it goes in any order."""
    if not isinstance(value, dict) or "reaped" not in value:
        return value
    rows = sorted(value["reservations"], key=lambda row: (row["team_id"] or "", row["user_id"]))
    return {**value, "reservations": rows}


def differences(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: (one.get(name), other.get(name)) for name in one | other if one.get(name) != other.get(name)}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [differences(*pair) for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
    return one, other


async def all_events(session: Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = await session.send("list_events", {"after": cursor, "limit": 50})
        found += answer.value["events"]
        cursor = answer.raw.next_cursor
        if cursor is None:
            return found


def events(found: Sequence[dict[str, Any]], *, with_reserved: bool) -> dict[Any, list[Any]]:
    """By account, in order: calls that travel together may be recorded in another order than they were made.

    In SQL the event of making a reservation goes with it when it is pruned.
    """
    by_account: dict[Any, list[Any]] = {}
    for event in found:
        if event["name"] == "credits.reserved" and not with_reserved:
            continue
        account = event["team_id"] or event["user_id"]
        by_account.setdefault(account, []).append({name: each for name, each in event.items() if name != "id"})
    return by_account


@pytest.mark.parametrize("store", sorted(SQL_STEPS))
def test_sql_store_answers_as_memory_does(store: str) -> None:
    with asyncio.Runner() as runner:
        opened = open_side(store)

        @seed(SEED)
        class Machine(ComparingMachine):
            name = store
            side = runner.run(opened.__aenter__())
            shared_loop = runner.get_loop()

        try:
            # A step with a batch has several operations, so that fewer steps are needed.
            run_state_machine_as_test(Machine, settings=examples(round(SQL_STEPS[store] * 0.75)))
        finally:
            runner.run(opened.__aexit__(None, None, None))
    assert COMPARED[store] >= SQL_STEPS[store]
