"""The life of a metered call, over the real manager and the memory store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from ducto.errors import (
    AlreadySettledError,
    CallInFlightError,
    ConfigError,
    ExceedsReservationError,
    InsufficientCreditsError,
    ReservationReleasedError,
    StoreError,
)
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from tests.unit.manager_support import PRICING, Heard, TroubledStore, settle_down, usage


@pytest.fixture
def store() -> TroubledStore:
    return TroubledStore()


@pytest.fixture
async def manager(store: TroubledStore) -> AsyncIterator[CreditManager]:
    async with CreditManager(store, maintain_every_seconds=None) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u", 10_000, "purchase")
        yield manager


async def fails_in(call: MeteredCall, first: Callable[[MeteredCall], None]) -> None:
    async def block() -> None:
        async with call:
            first(call)
            raise ValueError("provider")

    with pytest.raises(ValueError, match="provider"):
        await block()


async def books(manager: CreditManager) -> tuple[int, int]:
    found = await manager.get_available("u")
    assert (await manager.verify()).ok
    return found.balance, found.held


async def test_recorded_usage_is_charged_on_leaving(manager: CreditManager) -> None:
    async with manager.meter("u", estimate=usage(100)) as call:
        assert call.reservation.amount == 1000
        assert await books(manager) == (10_000, 1000)
        call.record(usage(7))
    assert await books(manager) == (9930, 0)
    row = (await manager.list_transactions("u")).transactions[0]
    assert (row.estimated, row.usage, row.model) == (False, usage(7), "m")


@pytest.mark.parametrize(("policy", "charged"), [("estimate", 100 * 10), ("reserved", 5000)])
async def test_missing_usage(store: TroubledStore, policy: str, charged: int) -> None:
    async with CreditManager(store, maintain_every_seconds=None, missing_usage=policy) as manager:  # type: ignore[arg-type]
        await manager.publish_pricing(
            {
                "min_balance": 0,
                "models": {"m": {"input": 1_000_000, "output": 10_000_000, "reasoning": 50_000_000}},
            }
        )
        await manager.add_credits("u", 10_000)
        async with manager.meter("u", estimate=usage(100)) as call:
            assert call.reservation.amount == 5000  # the bound: all output may turn out to be reasoning
        assert await books(manager) == (10_000 - charged, 0)
        assert (await manager.list_transactions("u")).transactions[0].estimated


async def test_an_explicit_zero_is_charged_as_zero(manager: CreditManager) -> None:
    async with manager.meter("u", estimate=usage(100)) as call:
        call.record(usage(0))
    assert await books(manager) == (10_000, 0)
    assert not (await manager.list_transactions("u")).transactions[0].estimated


async def test_a_failed_block_is_released_and_one_with_usage_charged(manager: CreditManager) -> None:
    await fails_in(manager.meter("u", estimate=500), lambda call: None)
    assert await books(manager) == (10_000, 0)
    await fails_in(manager.meter("u", estimate=500), lambda call: call.record(usage(5)))
    assert await books(manager) == (9950, 0)
    await fails_in(manager.meter("u", estimate=500), lambda call: call.note_delivery())
    assert await books(manager) == (9450, 0)


async def test_a_refusal_reaches_the_caller_before_the_block(manager: CreditManager) -> None:
    with pytest.raises(InsufficientCreditsError) as caught:
        async with manager.meter("u", estimate=usage(1001)):
            pytest.fail("the block must not run")
    assert caught.value.details["available"] == 10_000


async def test_it_ends_once(manager: CreditManager, store: TroubledStore) -> None:
    call = manager.meter("u", estimate=500)
    with pytest.raises(ConfigError, match="not been admitted"):
        await call.settle(1)
    await call.start()
    with pytest.raises(ConfigError, match="runs once"):
        await call.start()
    first = await call.settle(usage(3))
    assert (await call.settle(usage(9))) == first
    assert not (await call.release()).released
    await call.finish()
    assert store.calls.count("deduct") == 1
    assert await books(manager) == (9970, 0)

    call = manager.meter("u", estimate=500)
    await call.start()
    assert (await call.release()).released
    with pytest.raises(ReservationReleasedError):
        await call.settle(1)
    assert await books(manager) == (9970, 0)


@pytest.mark.parametrize("turns", range(14))
async def test_a_cancelled_settle_is_never_lost(manager: CreditManager, store: TroubledStore, turns: int) -> None:
    call = manager.meter("u", estimate=500)
    await call.start()
    store.pauses = 3
    store.lose = 1
    waiter = asyncio.create_task(call.settle(usage(4)))
    await settle_down(turns + 1)
    waiter.cancel()
    await asyncio.wait((waiter,))
    store.pauses = 0
    await manager.aclose()
    assert (await store.get_balance("u")).balance == 9960
    assert (await store.get_available("u")).held == 0


@pytest.mark.parametrize("turns", range(16))
async def test_a_block_cancelled_anywhere_leaves_no_hold(
    manager: CreditManager, store: TroubledStore, turns: int
) -> None:
    store.pauses = 2

    async def handle() -> None:
        async with manager.meter("u", estimate=500):
            await asyncio.sleep(3600)

    task = asyncio.create_task(handle())
    await settle_down(turns)
    task.cancel()
    await asyncio.wait((task,))
    await manager.aclose()
    assert (await store.get_available("u")).available == 10_000


async def test_concurrent_calls_never_overspend(manager: CreditManager, store: TroubledStore) -> None:
    store.pauses = 1

    async def one() -> bool:
        try:
            async with manager.meter("u", estimate=usage(100)) as call:
                await asyncio.sleep(0)
                call.record(usage(100))
        except InsufficientCreditsError:
            return False
        return True

    answers = await asyncio.gather(*(one() for _ in range(25)))
    assert sum(answers) == 10
    assert await books(manager) == (0, 0)


async def test_lost_answers_are_asked_for_again_and_charged_once(manager: CreditManager, store: TroubledStore) -> None:
    heard = Heard(manager)
    async with manager.meter("u", estimate=500) as call:
        store.lose = 2
        call.record(usage(4))
    assert store.calls.count("deduct") == 3
    assert await books(manager) == (9960, 0)
    assert "deduct_failed" not in await heard.names()


async def test_a_charge_that_fails_for_good_is_announced_and_keeps_the_answer(
    manager: CreditManager, store: TroubledStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard(manager)
    store.retryable = False
    async with manager.meter("u", estimate=500, metadata={"source": "test"}) as call:
        store.fail = 1
        call.record(usage(4))
    assert isinstance(call.settle_error, StoreError)
    (event,) = await heard.of("deduct_failed")
    assert event.user_id == "u"
    assert {
        "reservation_id": call.reservation.reservation_id,
        "amount": 40,
        "usage": {"model": "m", "output_tokens": 4},
        "metadata": {"source": "test"},
        "code": "store_unavailable",
    }.items() <= dict(event.data).items()
    call = manager.meter("u", estimate=500)
    await call.start()
    store.fail = 1
    with pytest.raises(StoreError):
        await call.settle(1)
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


async def test_a_refused_settle_is_raised_and_announced(manager: CreditManager) -> None:
    heard = Heard(manager)
    call = manager.meter("u", estimate=500, overage="reject")
    await call.start()
    with pytest.raises(ExceedsReservationError):
        await call.settle(501)
    (event,) = await heard.of("deduct_failed")
    assert event.data["code"] == "exceeds_reservation"


async def test_usage_that_has_no_price_counts_as_missing(
    manager: CreditManager, caplog: pytest.LogCaptureFixture
) -> None:
    async with manager.meter("u", estimate=usage(10)) as call:
        call.record(usage(3, model="unheard-of"))
    assert await books(manager) == (9900, 0)
    assert (await manager.list_transactions("u")).transactions[0].estimated
    assert "cannot be priced" in caplog.text


async def test_a_key_names_the_call(manager: CreditManager) -> None:
    first = manager.meter("u", estimate=500, idempotency_key="k")
    await first.start()
    with pytest.raises(CallInFlightError):
        await manager.meter("u", estimate=500, idempotency_key="k").start()
    await first.release()
    second = manager.meter("u", estimate=500, idempotency_key="k")
    await second.start()
    settled = await second.settle(30)
    with pytest.raises(AlreadySettledError) as caught:
        await manager.meter("u", estimate=500, idempotency_key="k").start()
    assert caught.value.details["transaction_id"] == settled.transaction_id
    await manager.meter("u", estimate=500, idempotency_key="other").start()
    assert await books(manager) == (9970, 500)


async def test_a_key_has_ten_attempts(manager: CreditManager) -> None:
    for _ in range(10):
        call = manager.meter("u", estimate=5, idempotency_key="k")
        await call.start()
        await call.release()
    with pytest.raises(ReservationReleasedError, match="new key"):
        await manager.meter("u", estimate=5, idempotency_key="k").start()


async def test_a_replayed_hold_is_not_freed_for_a_cancelled_twin(manager: CreditManager, store: TroubledStore) -> None:
    first = await manager.reserve("u", 500, idempotency_key="k")
    store.pauses = 3
    twin = asyncio.create_task(manager.reserve("u", 500, idempotency_key="k"))
    await settle_down(4)
    twin.cancel()
    await settle_down(30)
    assert (await manager.get_reservation("u", first.reservation_id or "")).state == "active"


async def test_closing_waits_for_settles_and_announces_what_it_gave_up(store: TroubledStore) -> None:
    manager = CreditManager(store, maintain_every_seconds=None, drain_seconds=0.05)
    heard = Heard(manager, "credits.deduct_failed")
    await manager.add_credits("u", 1000)
    call = manager.meter("u", estimate=500)
    await call.start()
    store.pauses = 10**9
    waiter = asyncio.create_task(call.settle(40))
    await settle_down()
    with _Quiet():
        await manager.aclose()
    assert [event.data["amount"] for event in heard.events] == [40]
    with pytest.raises(StoreError):
        await waiter
    with pytest.raises(ConfigError, match="closed"):
        await manager.get_balance("u")


class _Quiet:
    """The errors that are logged here are expected."""

    def __enter__(self) -> None:
        logging.getLogger("ducto").setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("ducto").setLevel(logging.NOTSET)


async def test_long_calls_are_renewed_by_one_task(store: TroubledStore) -> None:
    async with CreditManager(store, maintain_every_seconds=None, ttl_seconds=1, grace_seconds=0) as manager:
        heard = Heard(manager)
        await manager.add_credits("u", 1000)
        tasks = len(asyncio.all_tasks())
        calls = [manager.meter("u", estimate=10) for _ in range(5)]
        for call in calls:
            await call.start()
        plain = await manager.reserve("u", 10)
        await settle_down()
        assert len(asyncio.all_tasks()) == tasks + 1
        await asyncio.sleep(1.4)
        for call in calls:
            found = await manager.get_reservation("u", call.reservation.reservation_id or "")
            assert found.state == "active"
            assert not (await call.settle(1)).late
        assert (await manager.get_reservation("u", plain.reservation_id or "")).state == "expired"
        renewed = len(await heard.of("renewed"))
        assert renewed >= 15
        await asyncio.sleep(0.5)
        assert len(await heard.of("renewed")) == renewed
