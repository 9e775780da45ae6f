"""Reads say until when they hold if nobody writes, in every store, so that they may be kept until then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from ducto.testing.harness import Harness

_FAR = datetime(9000, 1, 1, tzinfo=UTC)


async def _stable_until(harness: Harness, user_id: str) -> list[datetime]:
    store = harness.store
    reads = (
        await store.get_balance(user_id),
        await store.get_available(user_id),
        await store.check_allowance(user_id),
    )
    return [each.stable_until for each in reads if each.stable_until is not None]


async def test_what_is_due_bounds_what_reads_say(harness: Harness) -> None:
    user_id = f"stable-{uuid4().hex}"
    store = harness.store
    month_end = (await store.check_allowance(user_id)).period_end
    for known in (False, True):
        if known:
            await store.add_credits(user_id, 100)
        balance, available, allowance = await _stable_until(harness, user_id)
        assert min(balance, available) >= _FAR
        assert allowance == month_end

    held = await store.reserve_credits(user_id, 10, "chat", ttl_seconds=300, grace_seconds=60)
    assert held.expires_at is not None
    ends_at = held.expires_at + timedelta(seconds=60)
    assert await _stable_until(harness, user_id) == [ends_at, ends_at, min(ends_at, month_end)]

    await store.add_credits(user_id, 5, expires_at=held.expires_at)
    soon = held.expires_at
    assert await _stable_until(harness, user_id) == [soon, soon, min(soon, month_end)]

    await harness.advance(400)  # The grant has ended, and the hold too; nobody has booked it.
    assert (await store.get_available(user_id)).available == 100
    assert min((await _stable_until(harness, user_id))[:2]) >= _FAR


async def test_teams_say_it_as_well(harness: Harness) -> None:
    team_id = str((await harness.store.create_team("red", 50)).team_id)
    assert await _until(harness, team_id) >= _FAR
    await harness.store.add_team_member(team_id, "member")
    held = await harness.store.reserve_credits("member", 10, "chat", team_id=team_id, grace_seconds=0)
    assert await _until(harness, team_id) == held.expires_at


async def _until(harness: Harness, team_id: str) -> datetime:
    found = (await harness.store.get_available("anybody", team_id=team_id)).stable_until
    assert found is not None
    return found
