"""Many callers on a SQL store, through several stores at once, as several processes would: nothing is charged twice,
created, lost or leaked. Within one store calls on one account take turns; here they meet in the database.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import pytest

from ducto.errors import DuctoError
from ducto.models import SpendCap
from ducto.stores.base import CreditStore
from ducto.testing.harness import Harness
from tests.conformance.sql_harness import SQL_STORES

Value = TypeVar("Value")
CALLERS = 64
STORES = 4


class Callers:
    """Several stores on one database."""

    def __init__(self, harnesses: list[Harness]) -> None:
        self.harness = harnesses[0]
        self.stores = [each.store for each in harnesses]
        self.store = self.stores[0]

    async def all(self, call: Callable[[CreditStore, int], Awaitable[Value]], *, callers: int = CALLERS) -> list[Value]:
        """`call(store, number)` that often at once, by turns through the stores."""
        return await asyncio.gather(*(call(self.stores[number % STORES], number) for number in range(callers)))

    async def sound(self) -> None:
        audit = await self.store.verify()
        assert audit.ok, audit.faults


@pytest.fixture(params=SQL_STORES)
async def callers(request: pytest.FixtureRequest) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as opened:
        yield Callers([await opened.enter_async_context(SQL_STORES[request.param]()) for _ in range(STORES)])


def new_user() -> str:
    return f"user-{uuid4().hex}"


async def funded(store: CreditStore, amount: int) -> str:
    user_id = new_user()
    assert (await store.add_credits(user_id, amount)).ok
    return user_id


def codes(answers: list[Value]) -> list[str]:
    return sorted(str(getattr(answer, "error", None)) for answer in answers)


async def test_64_callers_with_one_key_reserve_once(callers: Callers) -> None:
    user_id = await funded(callers.store, 1000)
    answers = await callers.all(lambda store, _: store.reserve_credits(user_id, 10, "chat", idempotency_key="one"))
    assert len({answer.reservation_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await callers.store.get_available(user_id)).held == 10
    await callers.sound()


async def test_64_callers_with_one_key_charge_once_where_there_is_no_account_yet(callers: Callers) -> None:
    user_id = new_user()
    answers = await callers.all(
        lambda store, _: store.charge_credits(user_id, 10, idempotency_key="one", min_balance=-10)
    )
    assert codes(answers) == ["None"] * CALLERS
    assert len({answer.transaction_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await callers.store.get_balance(user_id)).balance == -10
    await callers.sound()


async def test_64_deliveries_of_one_payment_to_a_new_user_add_once(callers: Callers) -> None:
    user_id = new_user()
    answers = await callers.all(lambda store, _: store.add_credits(user_id, 50, "purchase", idempotency_key="event"))
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await callers.store.get_balance(user_id)).lifetime_purchased == 50
    await callers.sound()


async def test_64_callers_with_one_key_make_one_team(callers: Callers) -> None:
    key = uuid4().hex
    answers = await callers.all(lambda store, _: store.create_team("red", 70, idempotency_key=key))
    assert len({answer.team_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    await callers.sound()


async def test_first_writes_of_a_new_account_are_numbered_without_gaps(callers: Callers) -> None:
    user_id = new_user()
    await callers.all(lambda store, number: store.add_credits(user_id, number + 1))
    page = await callers.store.list_transactions(user_id, limit=1000)
    assert [row.sequence for row in page.transactions] == list(range(CALLERS, 0, -1))
    assert page.transactions[0].balance_after == CALLERS * (CALLERS + 1) // 2
    await callers.sound()


async def test_64_callers_settle_one_reservation_once(callers: Callers) -> None:
    user_id = await funded(callers.store, 1000)
    held = str((await callers.store.reserve_credits(user_id, 50, "chat")).reservation_id)
    answers = await callers.all(lambda store, _: store.deduct_credits(user_id, held, 40))
    assert len({answer.transaction_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await callers.store.get_balance(user_id)).balance == 960
    await callers.sound()


async def test_deduct_and_release_of_one_reservation_have_one_winner(callers: Callers) -> None:
    for _ in range(10):
        user_id = await funded(callers.store, 100)
        held = str((await callers.store.reserve_credits(user_id, 50, "chat")).reservation_id)
        deducted, released = await asyncio.gather(
            callers.stores[1].deduct_credits(user_id, held, 40), callers.stores[2].release_reservation(user_id, held)
        )
        assert deducted.ok != released.released
        left = await callers.store.get_available(user_id)
        assert (left.balance, left.held) == (60 if deducted.ok else 100, 0)
    await callers.sound()


async def test_64_callers_at_a_balance_for_10(callers: Callers) -> None:
    user_id = await funded(callers.store, 100)
    answers = await callers.all(lambda store, _: store.reserve_credits(user_id, 10, "chat", min_balance=0))
    assert codes(answers) == ["None"] * 10 + ["insufficient_credits"] * 54
    left = await callers.store.get_available(user_id)
    assert (left.balance, left.held, left.available) == (100, 100, 0)
    await callers.sound()


async def test_64_callers_at_a_cap_for_10_and_at_a_limit_of_3_calls(callers: Callers) -> None:
    capped, limited = await funded(callers.store, 10_000), await funded(callers.store, 10_000)
    await callers.store.set_spend_cap(SpendCap(user_id=capped, cap_type="monthly", limit=100))
    answers = await callers.all(lambda store, _: store.reserve_credits(capped, 10, "chat"))
    assert codes(answers) == ["None"] * 10 + ["cap_reached"] * 54
    answers = await callers.all(lambda store, _: store.reserve_credits(limited, 10, "chat", max_concurrent=3))
    assert codes(answers) == ["None"] * 3 + ["concurrency_limit"] * 61
    await callers.sound()


async def test_64_callers_at_a_member_cap_for_10(callers: Callers) -> None:
    team_id = str((await callers.store.create_team("red", 10_000)).team_id)
    user_id = new_user()
    await callers.store.add_team_member(team_id, user_id, spend_cap=100)
    answers = await callers.all(lambda store, _: store.deduct_team(team_id, user_id, 10))
    assert codes(answers) == ["None"] * 10 + ["member_cap_reached"] * 54
    assert (await callers.store.get_team_balance(team_id)).balance == 9_900
    await callers.sound()


async def test_opposite_transfers_neither_block_nor_create_credits(callers: Callers) -> None:
    users = [await funded(callers.store, 500) for _ in range(2)]

    async def back_and_forth(store: CreditStore, number: int) -> None:
        source, target = users if number % 2 else reversed(users)
        for turn in range(10):
            await store.transfer_credits(source, target, 7, idempotency_key=f"{number}-{turn}")

    await callers.all(back_and_forth, callers=16)
    balances = [(await callers.store.get_balance(user_id)).balance for user_id in users]
    assert sum(balances) == 1000
    assert min(balances) >= 0
    await callers.sound()


async def test_sweep_reaper_and_audit_beside_spends(callers: Callers) -> None:
    users = [await funded(callers.store, 5000) for _ in range(3)]

    async def keep_house(store: CreditStore) -> int:
        for _ in range(12):
            await callers.harness.advance(7)
            await store.sweep_expired_credits()
            await store.reap_expired_reservations()
            audit = await store.verify()
            assert audit.ok, audit.faults
        return 0

    async def spend(store: CreditStore, number: int) -> int:
        if number == 0:
            return await keep_house(store)
        chance, user_id, moved = random.Random(number), users[number % 3], 0
        now = (await store.list_transactions(user_id, limit=1)).transactions[0].created_at
        for turn in range(24):
            if turn % 6 == 0:
                added = await store.add_credits(
                    user_id, 50, "grant", expires_at=now + timedelta(seconds=chance.randint(200, 400))
                )
                moved += added.amount
            held = await store.reserve_credits(user_id, 5, "chat", ttl_seconds=5, grace_seconds=3)
            if held.reservation_id is None:
                continue
            if turn % 3 == 0:
                await store.release_reservation(user_id, held.reservation_id)
            elif turn % 3 == 1:
                moved -= (await store.deduct_credits(user_id, held.reservation_id, chance.randint(0, 6))).amount
        return moved

    moved = sum(await callers.all(spend, callers=16))
    await callers.harness.advance(3600)
    await callers.store.sweep_expired_credits()
    await callers.store.reap_expired_reservations()
    left = expired = 0
    for user_id in users:
        account = await callers.store.get_available(user_id)
        assert account.held == 0
        left += account.balance
        cursor: str | None = None
        while True:
            page = await callers.store.list_transactions(user_id, limit=500, cursor=cursor)
            expired += sum(row.amount for row in page.transactions if row.type == "expiry")
            cursor = page.next_cursor
            if cursor is None:
                break
    assert expired < 0
    assert left == 15_000 + moved + expired
    await callers.sound()


async def test_refunds_by_many_callers_never_exceed_the_charge(callers: Callers) -> None:
    user_id = await funded(callers.store, 100)
    charged = str((await callers.store.charge_credits(user_id, 60)).transaction_id)
    answers = await callers.all(
        lambda store, number: store.refund_credits(charged, 7, idempotency_key=f"refund-{number}")
    )
    assert codes(answers) == ["None"] * 8 + ["over_refund"] * 56
    assert (await callers.store.get_balance(user_id)).balance == 96
    await callers.sound()


async def test_publishes_with_one_expected_version_win_once(callers: Callers) -> None:
    active = await callers.store.get_active_pricing()
    version = 0 if active is None else active.id
    config = {"plans": {"free": {"free_allowance": 1}}}

    async def publish(store: CreditStore, _: int) -> str:
        try:
            return await store.set_active_pricing(config, expected_version=version)
        except DuctoError as error:
            return error.code

    answers = await callers.all(publish)
    assert answers.count("version_conflict") == CALLERS - 1


async def test_mixed_traffic_on_few_accounts_keeps_the_sum(callers: Callers) -> None:
    """All verbs that lock, on three users and a team, from all stores at once; what came in and went out adds up."""
    users = [await funded(callers.store, 1000) for _ in range(3)]
    team_id = str((await callers.store.create_team("red", 1000)).team_id)
    for user_id in users:
        await callers.store.add_team_member(team_id, user_id)

    async def act(store: CreditStore, number: int) -> int:
        chance, moved = random.Random(number), 0
        for _ in range(12):
            user_id, other = chance.sample(users, 2)
            kind = chance.randrange(6)
            if kind == 0:
                moved += (await store.add_credits(user_id, 3)).amount
            elif kind == 1:
                moved -= (await store.charge_credits(user_id, 2)).amount
            elif kind == 2:
                await store.transfer_credits(user_id, other, 4)
            elif kind == 3:
                moved -= (await store.deduct_team(team_id, user_id, 2)).amount
            else:
                team = team_id if kind == 4 else None
                held = await store.reserve_credits(user_id, 5, "chat", team_id=team)
                if held.reservation_id is not None:
                    moved -= (await store.deduct_credits(user_id, held.reservation_id, chance.randint(0, 9))).amount
        return moved

    moved = sum(await callers.all(act, callers=32))
    balances = [(await callers.store.get_balance(user_id)).balance for user_id in users]
    assert sum(balances) + (await callers.store.get_team_balance(team_id)).balance == 4000 + moved
    await callers.sound()
