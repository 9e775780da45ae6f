"""Checks of the store as a thing: setting it up, probing it, auditing it."""

from __future__ import annotations

import asyncio

from ducto.models import SpendCap
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fund,
    hold,
    key,
    soon,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import FREE, on_plan
from ducto.testing.harness import Harness


async def check_setup_may_be_repeated(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10)
    result = await store.setup()
    equal((result.success, result.errors), (True, ()), "setup of a store that is set up")
    await books(store, payer, "after setup", balance=10)


async def check_two_setups_at_once_end(harness: Harness) -> None:
    results = await asyncio.gather(*(harness.store.setup() for _ in range(4)))
    equal([(result.success, result.errors) for result in results], [(True, ())] * 4, "four setups at once")


async def check_setup_under_traffic_breaks_no_call(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)

    async def life() -> None:
        expect(await store.deduct_credits(payer, await hold(store, payer, 5), 5), "deduct under setup")

    setup, _ = await asyncio.gather(store.setup(), asyncio.gather(*(life() for _ in range(32))))
    ensure(setup.success, f"setup under traffic, found {setup!r}")
    await books(store, payer, "after 32 calls", balance=1000 - 32 * 5)


async def check_ping_answers(harness: Harness) -> None:
    await harness.store.ping()


async def check_verify_agrees_with_a_rich_history(harness: Harness) -> None:
    """An audit of books in which everything has happened, with things due that are not yet booked."""
    store = harness.store
    payer = await on_plan(store, FREE, credits=500)
    await fund(store, 50, user_id=payer, type="grant", expires_at=await soon(harness, 100))
    await store.set_spend_cap(SpendCap(user_id=payer, cap_type="daily", limit=400, action="warn"))
    expect(await store.deduct_credits(payer, await hold(store, payer, 150), 160), "deduct with overage")
    await hold(store, payer, 20, ttl_seconds=10)
    expect(await store.charge_credits(payer, 900, force=True), "forced charge")
    expect(
        await store.refund_credits(await charge(store, await fund(store, 9), 9), 4, idempotency_key=key()),
        "refund",
    )
    member = user()
    team_id = await team_of(store, member, credits=100, spend_cap=90)
    expect(await store.deduct_team(team_id, member, 30), "deduct_team")
    await hold(store, member, 10, team_id=team_id)
    await harness.advance(500)
    audit = await store.verify()
    ensure(audit.ok, f"verify() of honest books: expected no fault, found {audit.faults!r}")
    equal(audit.faults, (), "faults of an audit that is ok")
