"""The rules of the model test: one for each family of verbs. What a step checks, a subclass says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.model import operations as ops
from tests.model.operations import CONFIGS, Advance, Operation
from tests.model.settings import STEPS

__all__ = ["StoreMachine"]

Value = TypeVar("Value")


class StoreMachine(RuleBasedStateMachine):
    """Draws operations. Subclasses send them to one store or to several, in `step`, `advance` and `again`."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.open_loop()
        self.failed = False
        self.start()
        self.run(self.step(Operation("set_active_pricing", {"config": CONFIGS[0], "idempotency_key": None})))
        self.run(self.step(Operation("create_team", {"name": "red", "initial_balance": 100, "idempotency_key": None})))
        for user_id in ops.USERS[:2]:
            member = {"team_id": ops.Nth("team", 0), "user_id": user_id, "spend_cap": 60}
            self.run(self.step(Operation("add_team_member", member)))

    def start(self) -> None:
        raise NotImplementedError

    async def step(self, operation: Operation) -> None:
        raise NotImplementedError

    async def advance(self, by: Advance) -> None:
        raise NotImplementedError

    async def again(self, number: int) -> None:
        """Send one of the calls that were answered under a key once more."""
        raise NotImplementedError

    async def finish(self) -> None:
        """What is checked once, at the end of an example."""

    def run(self, step: Coroutine[Any, Any, Value]) -> Value:
        STEPS.taken += 1
        try:
            return self.loop.run_until_complete(step)
        except BaseException:
            self.failed = True
            raise

    def teardown(self) -> None:
        try:
            # After a failure the end would fail as well, and hide it.
            if not self.failed:
                self.loop.run_until_complete(self.finish())
        finally:
            self.close_loop()

    def open_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def close_loop(self) -> None:
        self.loop.close()

    @rule(operation=ops.adds)
    def add(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.reserves)
    def reserve(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.reserves)
    def reserve_more(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.deducts)
    def deduct(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.deducts)
    def deduct_more(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.releases, ops.renews))
    def release_or_renew(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.charges, ops.team_charges))
    def charge(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.adjusts, ops.transfers))
    def adjust_or_transfer(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.refunds)
    def refund(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.plans, ops.publishes))
    def plan(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=ops.caps)
    def cap(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.members, ops.members, ops.teams))
    def team(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(operation=st.one_of(ops.reads, ops.reads, ops.reports))
    def read(self, operation: Operation) -> None:
        self.run(self.step(operation))

    @rule(number=st.integers(0, 63))
    def repeat(self, number: int) -> None:
        self.run(self.again(number))
