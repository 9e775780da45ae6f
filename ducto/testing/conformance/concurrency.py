"""Checks under 64 callers at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from ducto.models import Outcome, SpendCap
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    event_cursor,
    events_since,
    expect,
    fund,
    hold,
    key,
    known,
    rows,
    soon,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import FREE, on_plan
from ducto.testing.harness import Harness

CALLERS = 64


def _outcomes(results: Iterable[Outcome]) -> Counter[str]:
    return Counter("replay" if result.replayed else result.error or "ok" for result in results)


async def check_one_key_of_64_callers_is_charged_once(harness: Harness) -> None:
    store, one_key = harness.store, key()
    payer = await fund(store, 1000)
    cursor = await event_cursor(store)
    results = await asyncio.gather(*(store.charge_credits(payer, 10, idempotency_key=one_key) for _ in range(CALLERS)))
    equal(_outcomes(results), Counter(ok=1, replay=CALLERS - 1), "answers under one key")
    equal({result.transaction_id for result in results}, {results[0].transaction_id}, "transactions")
    equal(len(await events_since(store, cursor, payer)), 1, "events of one charge")
    await books(store, payer, "after one charge", balance=990)


async def check_one_key_of_64_callers_is_one_hold(harness: Harness) -> None:
    store, one_key = harness.store, key()
    payer = await fund(store, 1000)
    results = await asyncio.gather(
        *(store.reserve_credits(payer, 10, "chat", idempotency_key=one_key) for _ in range(CALLERS))
    )
    equal(_outcomes(results), Counter(ok=1, replay=CALLERS - 1), "answers under one key")
    await books(store, payer, "after one reserve", balance=1000, available=990)


async def check_one_key_of_64_callers_on_a_team_pool(harness: Harness) -> None:
    store, one_key, member = harness.store, key(), user()
    team_id = await team_of(store, member, credits=1000)
    results = await asyncio.gather(
        *(store.deduct_team(team_id, member, 10, idempotency_key=one_key) for _ in range(CALLERS))
    )
    equal(_outcomes(results), Counter(ok=1, replay=CALLERS - 1), "answers under one key")
    equal((await store.get_team_balance(team_id)).balance, 990, "pool after one charge")


async def check_one_top_up_of_64_deliveries(harness: Harness) -> None:
    store, payer, one_key = harness.store, user(), key("evt")
    results = await asyncio.gather(
        *(store.add_credits(payer, 10, "purchase", idempotency_key=one_key) for _ in range(CALLERS))
    )
    equal(_outcomes(results), Counter(ok=1, replay=CALLERS - 1), "answers under one key")
    await books(store, payer, "after one top-up", balance=10)


async def check_one_reservation_of_64_callers_settles_once(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    reservation_id = await hold(store, payer, 10)
    results = await asyncio.gather(*(store.deduct_credits(payer, reservation_id, 10) for _ in range(CALLERS)))
    equal(_outcomes(results), Counter(ok=1, replay=CALLERS - 1), "answers of 64 deducts of one reservation")
    await books(store, payer, "after one deduct", balance=990)


async def check_deduct_and_release_race_has_one_winner(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 1000)
    for turn in range(8):
        reservation_id = await hold(store, payer, 10)
        calls = [
            store.deduct_credits(payer, reservation_id, 10),
            store.release_reservation(payer, reservation_id),
        ]
        if turn % 2:
            calls.reverse()
        await asyncio.gather(*calls)
    spent = sum(1 for row in await rows(store, payer) if row.type == "deduction")
    await books(store, payer, f"after {spent} deducts that won", balance=1000 - 10 * spent)


async def check_64_charges_at_a_balance_for_10(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    results = await asyncio.gather(*(store.charge_credits(payer, 10) for _ in range(CALLERS)))
    equal(_outcomes(results), Counter(ok=10, insufficient_credits=CALLERS - 10), "answers")
    await books(store, payer, "spent to the last credit", balance=0)


async def check_64_reserves_at_a_balance_for_10(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    results = await asyncio.gather(*(store.reserve_credits(payer, 10, "chat", min_balance=0) for _ in range(CALLERS)))
    equal(_outcomes(results), Counter(ok=10, insufficient_credits=CALLERS - 10), "answers")
    await books(store, payer, "held to the last credit", balance=100, available=0)


async def check_64_calls_at_a_cap_for_10(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10_000)
    await store.set_spend_cap(SpendCap(user_id=payer, cap_type="monthly", limit=100))
    results: list[Outcome] = await asyncio.gather(
        *(
            store.charge_credits(payer, 10) if turn % 2 else store.reserve_credits(payer, 10, "chat", min_balance=0)
            for turn in range(CALLERS)
        )
    )
    equal(_outcomes(results), Counter(ok=10, cap_reached=CALLERS - 10), "answers at a cap for 10")


async def check_64_calls_at_a_member_cap_for_10(harness: Harness) -> None:
    store, member = harness.store, user()
    team_id = await team_of(store, member, credits=10_000, spend_cap=100)
    results: list[Outcome] = await asyncio.gather(
        *(
            store.deduct_team(team_id, member, 10)
            if turn % 2
            else store.reserve_credits(member, 10, "chat", min_balance=0, team_id=team_id)
            for turn in range(CALLERS)
        )
    )
    equal(
        _outcomes(results),
        Counter(ok=10, member_cap_reached=CALLERS - 10),
        "answers at a member's cap for 10",
    )


async def check_64_calls_at_5_slots(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 10_000)
    results = await asyncio.gather(
        *(store.reserve_credits(payer, 1, "chat", min_balance=0, max_concurrent=5) for _ in range(CALLERS))
    )
    equal(_outcomes(results), Counter(ok=5, concurrency_limit=CALLERS - 5), "answers at 5 slots")


async def check_64_calls_share_one_allowance(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    results = await asyncio.gather(*(store.charge_credits(payer, 10) for _ in range(CALLERS)))
    equal(
        _outcomes(results),
        Counter(ok=10, insufficient_credits=CALLERS - 10),
        "answers at an allowance for 10",
    )
    equal((await store.check_allowance(payer)).used, 100, "allowance used")


async def check_64_full_refunds_return_it_once(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 40)
    results = await asyncio.gather(*(store.refund_credits(transaction_id) for _ in range(CALLERS)))
    equal(_outcomes(results), Counter(ok=1, already_refunded=CALLERS - 1), "answers of 64 refunds")
    await books(store, payer, "refunded once", balance=100)


async def check_opposite_transfers_end(harness: Harness) -> None:
    """64 transfers in both directions neither deadlock nor lose a credit."""
    store = harness.store
    first, second = await fund(store, 1000), await fund(store, 1000)
    results = await asyncio.gather(
        *(
            store.transfer_credits(first, second, 3) if turn % 2 else store.transfer_credits(second, first, 2)
            for turn in range(CALLERS)
        )
    )
    equal(_outcomes(results), Counter(ok=CALLERS), "answers of opposite transfers")
    await books(store, first, "first", balance=1000 - 32)
    await books(store, second, "second", balance=1000 + 32)


async def check_two_sweeps_take_a_grant_once(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    await fund(store, 100, user_id=payer)
    await store.sweep_expired_credits()
    await harness.advance(200)
    sweeps = await asyncio.gather(*(store.sweep_expired_credits() for _ in range(8)))
    ensure(sum(sweep.amount for sweep in sweeps) >= 50, f"the sweeps book 50 credits, found {sweeps!r}")
    expired = [row.amount for row in await rows(store, payer) if row.type == "expiry"]
    equal(expired, [-50], "expiry rows after 8 sweeps at once")
    await books(store, payer, "after the sweeps", balance=100)


async def check_sweeps_beside_spends_lose_nothing(harness: Harness) -> None:
    """Spends that run while the grant is swept take paid credits once, and the sweep takes none of them."""
    store = harness.store
    payer = await fund(store, 50, type="grant", expires_at=await soon(harness, 100))
    await fund(store, 100, user_id=payer)
    reservation_id = await hold(store, payer, 20)
    await harness.advance(200)
    results = await asyncio.gather(
        *(store.sweep_expired_credits() if turn % 4 == 0 else store.charge_credits(payer, 2) for turn in range(CALLERS))
    )
    charged = sum(1 for result in results if isinstance(result, Outcome) and result.ok)
    equal(charged, 48, "charges that passed: 48 of 2 credits out of 100")
    await books(store, payer, "after spends and sweeps", balance=24, available=4)
    expect(await store.deduct_credits(payer, reservation_id, 20), "deduct of the held part of the grant")
    await books(store, payer, "at the end", balance=4)


async def check_cancelled_caller_leaks_no_hold(harness: Harness) -> None:
    """Whether or not the cancelled call was booked, its key finds the one hold again."""
    store = harness.store
    payer = await fund(store, 1000)
    for turns in range(6):
        one_key = key()

        async def reserve(idempotency_key: str = one_key) -> Outcome:
            return await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=idempotency_key)

        task = asyncio.create_task(reserve())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        result = await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=one_key)
        reservation_id = known(expect(result, "the same reserve again").reservation_id, "reservation_id")
        await books(store, payer, "one hold after a cancelled call", balance=1000, available=990)
        expect(await store.release_reservation(payer, reservation_id), "release")
        await books(store, payer, "no hold after the release", balance=1000)


async def check_mixed_traffic_keeps_the_sum(harness: Harness) -> None:
    """Everything at once on three users and a team; what came in is what is there and what was spent."""
    store = harness.store
    users = [await fund(store, 1000) for _ in range(3)]
    team_id = await team_of(store, *users, credits=1000)

    async def life(turn: int) -> int:
        payer = users[turn % 3]
        if turn % 4 == 0:
            return (await store.deduct_team(team_id, payer, 7)).amount
        if turn % 4 == 1:
            expect(await store.transfer_credits(payer, users[(turn + 1) % 3], 5), "transfer")
            return 0
        reservation_id = await hold(store, payer, 20)
        if turn % 4 == 2:
            expect(await store.release_reservation(payer, reservation_id), "release")
            return 0
        return expect(await store.deduct_credits(payer, reservation_id, 25), "deduct").amount

    spent = sum(await asyncio.gather(*(life(turn) for turn in range(CALLERS))))
    left = [(await store.get_balance(payer)).balance for payer in users]
    left.append((await store.get_team_balance(team_id)).balance)
    equal(sum(left) + spent, 4000, "what is left and what was spent")
