"""Checks of the order in which a call is judged, which is the precedence of its errors."""

from __future__ import annotations

from typing import Any

from ducto.models import SpendCap
from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    expect,
    fund,
    hold,
    in_debt,
    key,
    refused,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import PLANLESS_FEATURE, SINGLE, on_plan
from ducto.testing.harness import Harness


async def check_user_errors_come_in_order(harness: Harness) -> None:
    """Argument, feature, concurrency, caps, funds: one obstacle is removed after the other."""
    store = harness.store
    payer = await on_plan(store, SINGLE, credits=50)
    running = await hold(store, payer, 0)
    await store.set_spend_cap(SpendCap(user_id=payer, cap_type="daily", limit=10))

    async def reserve(amount: Any, feature: str | None = None) -> Any:
        return await store.reserve_credits(payer, amount, "chat", min_balance=0, feature=feature)

    refused(await reserve(-1, PLANLESS_FEATURE), "invalid_amount", "a bad amount comes first")
    refused(await reserve(100, PLANLESS_FEATURE), "feature_not_entitled", "the feature comes before concurrency")
    refused(await reserve(100), "concurrency_limit", "concurrency comes before caps")
    expect(await store.release_reservation(payer, running), "release")
    refused(await reserve(100), "cap_reached", "caps come before funds")
    await store.remove_spend_cap(payer, "daily")
    refused(await reserve(100), "insufficient_credits", "funds come last")
    await fund(store, 50, user_id=payer)
    expect(await reserve(100), "reserve without an obstacle")


async def check_team_errors_come_in_order(harness: Harness) -> None:
    """Argument, team, member, feature, concurrency, member cap, funds."""
    store, member, ghost = harness.store, user(), key("team")
    team_id = await team_of(store, credits=50)

    async def reserve(amount: Any, team: str = team_id, feature: str | None = None) -> Any:
        return await store.reserve_credits(
            member, amount, "chat", min_balance=0, team_id=team, feature=feature, max_concurrent=1
        )

    refused(await reserve(-1, ghost), "invalid_amount", "a bad amount comes before a missing team")
    refused(await reserve(100, ghost), "team_not_found", "a missing team")
    refused(await reserve(100, feature=PLANLESS_FEATURE), "not_a_member", "membership comes before the feature")
    expect(await store.add_team_member(team_id, member, spend_cap=10), "adding the member")
    running = await hold(store, member, 0, team_id=team_id)
    refused(await reserve(100, feature=PLANLESS_FEATURE), "feature_not_entitled", "feature before concurrency")
    refused(await reserve(100), "concurrency_limit", "concurrency comes before the member's cap")
    expect(await store.release_reservation(member, running), "release")
    refused(await reserve(100), "member_cap_reached", "the member's cap comes before funds")
    expect(await store.set_member_cap(team_id, member, None), "removing the cap")
    refused(await reserve(100), "insufficient_credits", "funds come last")
    expect(await store.add_team_credits(team_id, 50), "funding the team")
    expect(await reserve(100), "reserve without an obstacle")


async def check_key_is_looked_up_before_the_reservation(harness: Harness) -> None:
    """Argument, key, owner, state: a bad amount for a released reservation is a bad amount."""
    store = harness.store
    payer = await fund(store, 100)
    released = await hold(store, payer, 10)
    expect(await store.release_reservation(payer, released), "release")
    refused(
        await store.deduct_credits(payer, released, -1),
        "invalid_amount",
        "a bad amount comes before the state",
    )
    refused(await store.deduct_credits(payer, key("res"), -1), "invalid_amount", "and before an unknown id")
    used = key()
    expect(await store.deduct_credits(payer, await hold(store, payer, 10), 10, used), "deduct")
    refused(
        await store.deduct_credits(payer, released, 10, used),
        "idempotency_mismatch",
        "the key comes before the state",
    )


async def check_mismatch_comes_before_missing_funds(harness: Harness) -> None:
    store, used = harness.store, key()
    payer = await fund(store, 10)
    expect(await store.charge_credits(payer, 10, idempotency_key=used), "charge")
    refused(
        await store.charge_credits(payer, 1000, idempotency_key=used),
        "idempotency_mismatch",
        "a larger charge",
    )


async def check_funds_come_before_overflow(harness: Harness) -> None:
    store = harness.store
    poor = await in_debt(store, MAX_AMOUNT)
    refused(
        await store.adjust_credits(poor, 1, direction="debit", min_balance=-MAX_AMOUNT),
        "insufficient_credits",
        "a debit that is below the floor and below the smallest balance",
    )
