"""A store behind Redis answers as the memory store does, word for word, whatever happens to Redis meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from ducto.ledger.ids import account_of
from tests.model import operations as ops
from tests.model import wider_operations as wider
from tests.model.operations import Advance, Operation
from tests.model.redis_stores import FAULTS, Fault, open_redis_side
from tests.model.settings import COMPARED, REDIS_STEPS, SEED, examples
from tests.model.test_sql_stores import ComparingMachine

_lifting = st.one_of(
    ops.adds, ops.releases, ops.deducts, ops.refunds, ops.transfers, ops.plans, ops.caps, ops.members, ops.publishes
)


class RedisMachine(ComparingMachine):
    """Calls that are sent at the same time do not keep their order on the way through Redis."""

    def without_races(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """One call for each account at most."""
        kept: dict[tuple[str, str], Operation] = {}
        for operation in super().without_races(operations):
            sent = self.memory.resolve(operation.arguments)
            minted = account_of(sent.get("reservation_id", ""))
            team_id = sent.get("team_id")
            account = minted[:2] if minted else ("user", sent["user_id"]) if team_id is None else ("team", team_id)
            kept.setdefault(account, operation)
        return list(kept.values())

    async def finish(self) -> None:
        """Whatever chance has chosen: a reply that is kept and a refusal that is kept are compared in each example."""
        paid = {"user_id": "zoe", "amount": 5, "type": "purchase", "idempotency_key": "zoe pays"}
        asked = {"user_id": "zoe", "operation_type": "chat", "min_balance": 0}
        operations = [Operation("add_credits", paid)] * 2
        operations += [Operation("reserve_credits", {**asked, "amount": amount}) for amount in (10**9, 10**9 + 1)]
        for operation in operations:
            await self.step(operation)
        await super().finish()

    @rule(operation=st.one_of(ops.reads, wider.lookups))
    def look_twice(self, operation: Operation) -> None:
        for _ in range(2):
            self.run(self.step(operation))

    @rule(
        operation=st.one_of(ops.reserves, ops.charges, ops.team_charges),
        times=st.sampled_from((4, 10**9)),
        more=st.integers(0, 40),
        between=st.one_of(st.none(), _lifting, ops.advances(backwards=True)),
    )
    def ask_again(self, operation: Operation, times: int, more: int, between: Operation | Advance | None) -> None:
        """For more than most have, for more again, and once more when something has happened that may allow it."""
        amount = times * operation.arguments["amount"]
        for step, asked in (("ask", amount), ("ask", amount + more), ("happen", 0), ("ask", amount + more)):
            if step == "ask":
                given = {**operation.arguments, "amount": asked, "idempotency_key": None}
                self.run(self.step(Operation(operation.verb, given)))
            elif isinstance(between, Operation):
                self.run(self.step(between))
            elif between is not None:
                self.run(self.advance(between))


def _compare(inner: Literal["memory", "postgres"], fault: Fault, *, cheap_refusals: bool) -> dict[str, int]:
    """Run the machine; how often Redis was of use."""
    label = f"redis({inner})" + f", {fault}" * (fault != "none") + ", refusals" * cheap_refusals
    steps = REDIS_STEPS[inner] // (1 if fault == "none" else 2)
    with asyncio.Runner() as runner:
        opened = open_redis_side(inner, fault, cheap_refusals=cheap_refusals)

        @seed(SEED)
        class Machine(RedisMachine):
            name = label
            side = runner.run(opened.__aenter__())
            shared_loop = runner.get_loop()

        try:
            run_state_machine_as_test(Machine, settings=examples(round(steps * 0.75)))
        finally:
            runner.run(opened.__aexit__(None, None, None))
        assert COMPARED[label] >= steps
        return {name: Machine.side.total(name) for name in ("hits", "fallbacks", "refusals", "replies")}


@pytest.mark.parametrize("cheap_refusals", [False, True], ids=["", "refusals"])
@pytest.mark.parametrize("inner", ["memory", "postgres"])
def test_store_behind_redis_answers_as_memory_does(inner: Literal["memory", "postgres"], cheap_refusals: bool) -> None:
    used = _compare(inner, "none", cheap_refusals=cheap_refusals)
    assert used["hits"] > 0
    assert used["replies"] > 0
    assert (used["refusals"] > 0) == cheap_refusals


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("inner", ["memory", "postgres"])
def test_faults_of_redis_change_no_answer(inner: Literal["memory", "postgres"], fault: Fault) -> None:
    used = _compare(inner, fault, cheap_refusals=True)
    assert used["hits"] > 0
    assert (used["fallbacks"] > 0) or fault == "flushed"
