"""When the sweep and the reaper run makes no difference to any answer.

The same operations go to two stores. One of them is swept and reaped whenever the clock has moved, the other never:
each answer is the same, and so are the books once both are swept and reaped at the end. The clock only goes forward
here, because the time of an account never goes back, and a sweep is one more look at the clock.
"""

from __future__ import annotations

from typing import Any

from hypothesis import seed
from hypothesis.stateful import rule

from ducto.ledger.state import Account
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from tests.model import operations as ops
from tests.model.machine import StoreMachine
from tests.model.operations import Advance, Operation
from tests.model.run import Answer, Session
from tests.model.settings import SEED, steps


@seed(SEED)
class LazinessMachine(StoreMachine):
    def start(self) -> None:
        clock = ManualClock()
        self.eager = Session(MemoryStore(clock=clock), clock)
        self.lazy = Session(MemoryStore(clock=clock), clock)
        self.keyed: list[tuple[str, Answer, Answer]] = []

    async def step(self, operation: Operation) -> None:
        eager, lazy = await self.eager.apply(operation), await self.lazy.apply(operation)
        assert eager.value == lazy.value
        if eager.arguments.get("idempotency_key") is not None:
            self.keyed.append((operation.verb, eager, lazy))

    async def again(self, number: int) -> None:
        if self.keyed:
            verb, first_eager, first_lazy = self.keyed[number % len(self.keyed)]
            eager = await self.eager.send(verb, first_eager.arguments)
            lazy = await self.lazy.send(verb, first_lazy.arguments)
            assert eager.value == lazy.value

    async def advance(self, by: Advance) -> None:
        self.eager.advance(by)
        await clean(self.eager)

    async def finish(self) -> None:
        await clean(self.lazy)
        await clean(self.eager)
        for session in (self.eager, self.lazy):
            audit = await session.store.verify()
            assert audit.ok, audit.faults
        eager, lazy = contents(self.eager), contents(self.lazy)
        assert eager == lazy

    @rule(by=ops.advances(backwards=False))
    def move_clock(self, by: Advance) -> None:
        self.run(self.advance(by))

    @rule(operation=ops.prunes)
    def prune(self, operation: Operation) -> None:
        self.run(self.step(operation))


async def clean(session: Session) -> None:
    await session.store.sweep_expired_credits()
    await session.store.reap_expired_reservations(limit=100_000)


def contents(session: Session) -> list[Any]:
    """All rows, without the time at which what was due was booked."""
    assert isinstance(session.store, MemoryStore)
    return [_rows(session, account) for account in session.store._book.accounts.values()]


def _rows(session: Session, account: Account) -> list[Any]:
    def named(value: Any) -> Any:
        return session.names.get(value, value) if isinstance(value, str) else value

    whenever = ("created_at", "booked_at")
    return [
        (account.base, account.held),
        *(
            [
                named(value)
                for name, value in row._asdict().items()
                if name not in whenever and (name != "transaction_id" or value in session.names)
            ]
            for row in account.rows
        ),
    ]


TestLaziness = LazinessMachine.TestCase
TestLaziness.settings = steps(0.3)
