"""Many tasks and threads on one memory store: nothing is charged twice, created, lost or leaked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TypeVar

from ducto.errors import DuctoError
from ducto.models import SpendCap
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock

Value = TypeVar("Value")
CALLERS = 64


def in_threads(call: Callable[[int], Awaitable[Value]], *, callers: int = CALLERS) -> list[Value]:
    """Run `call(n)` in as many threads, each with an event loop of its own, all starting at once."""
    start = Barrier(callers)

    def run(number: int) -> Value:
        async def main() -> Value:
            start.wait()
            return await call(number)

        return asyncio.run(main())

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(run, range(callers)))


async def sound(store: MemoryStore) -> None:
    audit = await store.verify()
    assert audit.ok, audit.faults


async def test_64_tasks_with_one_key_reserve_once() -> None:
    store = MemoryStore()
    await store.add_credits("ann", 1000)
    answers = await asyncio.gather(
        *(store.reserve_credits("ann", 10, "chat", idempotency_key="one") for _ in range(CALLERS))
    )
    assert len({answer.reservation_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await store.get_available("ann")).held == 10
    await sound(store)


def test_64_threads_with_one_key_charge_once() -> None:
    store = MemoryStore()
    asyncio.run(store.add_credits("ann", 1000))
    answers = in_threads(lambda _: store.charge_credits("ann", 10, idempotency_key="one"))
    assert len({answer.transaction_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert asyncio.run(store.get_balance("ann")).balance == 990
    asyncio.run(sound(store))


def test_64_threads_settle_one_reservation_once() -> None:
    store = MemoryStore()
    asyncio.run(store.add_credits("ann", 1000))
    held = asyncio.run(store.reserve_credits("ann", 50, "chat"))
    reservation_id = str(held.reservation_id)
    answers = in_threads(lambda _: store.deduct_credits("ann", reservation_id, 40))
    assert len({answer.transaction_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert asyncio.run(store.get_balance("ann")).balance == 960
    asyncio.run(sound(store))


def test_64_threads_at_a_balance_for_10() -> None:
    store = MemoryStore()
    asyncio.run(store.add_credits("ann", 100))
    answers = in_threads(lambda _: store.reserve_credits("ann", 10, "chat", min_balance=0))
    assert sorted(str(answer.error) for answer in answers) == ["None"] * 10 + ["insufficient_credits"] * 54
    left = asyncio.run(store.get_available("ann"))
    assert (left.balance, left.held, left.available) == (100, 100, 0)
    asyncio.run(sound(store))


def test_64_threads_at_a_cap_for_10_and_at_a_limit_of_3_calls() -> None:
    store = MemoryStore()
    asyncio.run(store.add_credits("ann", 10_000))
    asyncio.run(store.set_spend_cap(SpendCap(user_id="ann", cap_type="monthly", limit=100)))
    capped = in_threads(lambda _: store.reserve_credits("ann", 10, "chat"))
    assert sum(answer.error is None for answer in capped) == 10
    asyncio.run(store.add_credits("bob", 10_000))
    limited = in_threads(lambda _: store.reserve_credits("bob", 10, "chat", max_concurrent=3))
    assert sorted(str(answer.error) for answer in limited) == ["None"] * 3 + ["concurrency_limit"] * 61
    asyncio.run(sound(store))


def test_64_threads_at_a_member_cap_for_10() -> None:
    store = MemoryStore()
    team_id = str(asyncio.run(store.create_team("red", 10_000)).team_id)
    asyncio.run(store.add_team_member(team_id, "ann", spend_cap=100))
    answers = in_threads(lambda _: store.deduct_team(team_id, "ann", 10))
    assert sorted(str(answer.error) for answer in answers) == ["None"] * 10 + ["member_cap_reached"] * 54
    assert asyncio.run(store.get_team_balance(team_id)).balance == 9_900
    asyncio.run(sound(store))


def test_opposite_transfers_neither_block_nor_create_credits() -> None:
    store = MemoryStore()
    for user_id in ("ann", "bob"):
        asyncio.run(store.add_credits(user_id, 500))

    async def back_and_forth(number: int) -> None:
        source, target = ("ann", "bob") if number % 2 else ("bob", "ann")
        for turn in range(20):
            await store.transfer_credits(source, target, 7, idempotency_key=f"{number}-{turn}")

    in_threads(back_and_forth)
    balances = [asyncio.run(store.get_balance(user_id)).balance for user_id in ("ann", "bob")]
    assert sum(balances) == 1000
    assert min(balances) >= 0
    asyncio.run(sound(store))


def test_sweep_and_reaper_beside_spends() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    asyncio.run(store.add_credits("ann", 20_000))

    async def worker(number: int) -> int:
        chance = random.Random(number)
        charged = 0
        for turn in range(40):
            if number == 0:
                clock.advance(7)
                await store.sweep_expired_credits()
                await store.reap_expired_reservations()
            elif number == 1:
                await store.add_credits(
                    "ann", 50, "grant", expires_at=clock() + timedelta(seconds=chance.randint(9, 99))
                )
            else:
                held = await store.reserve_credits("ann", 5, "chat", ttl_seconds=5, grace_seconds=3)
                if held.reservation_id is None:
                    continue
                if turn % 3 == 0:
                    await store.release_reservation("ann", held.reservation_id)
                elif turn % 3 == 1:
                    charged += (await store.deduct_credits("ann", held.reservation_id, chance.randint(0, 6))).actual
        return charged

    charged = sum(in_threads(worker, callers=16))
    clock.advance(3600)
    asyncio.run(store.sweep_expired_credits())
    left = asyncio.run(store.get_available("ann"))
    page = asyncio.run(store.list_transactions("ann", limit=1000))
    assert left.held == 0
    assert charged > 0
    assert page.transactions[0].balance_after == left.balance
    expired = sum(row.amount for row in all_rows(store) if row.type == "expiry")
    assert left.balance == 20_000 + 40 * 50 + expired - charged
    asyncio.run(sound(store))


def all_rows(store: MemoryStore) -> list[object]:
    return [row for account in store._book.accounts.values() for row in account.rows]


def test_refunds_from_many_threads_never_exceed_the_charge() -> None:
    store = MemoryStore()
    asyncio.run(store.add_credits("ann", 100))
    charge = asyncio.run(store.charge_credits("ann", 60))
    transaction_id = str(charge.transaction_id)
    answers = in_threads(lambda n: store.refund_credits(transaction_id, 7, idempotency_key=f"r{n}"))
    assert sum(answer.error is None for answer in answers) == 8
    assert asyncio.run(store.get_balance("ann")).balance == 96
    asyncio.run(sound(store))


def test_publishes_with_one_expected_version_win_once() -> None:
    store = MemoryStore()
    config = {"plans": {"free": {"free_allowance": 1}}}

    async def publish(_: int) -> str:
        try:
            return await store.set_active_pricing(config, expected_version=0)
        except DuctoError as error:
            return error.code

    assert sorted(in_threads(publish)) == ["1"] + ["version_conflict"] * 63
