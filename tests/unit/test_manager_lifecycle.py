"""Construction, maintenance, event loops and threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ducto.errors import ConfigError, NotSupportedError, ReservationNotFoundError
from ducto.manager import CreditManager
from ducto.models import Metadata, ReapResult, ReserveResult, SweepResult
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from tests.unit.manager_support import PRICING, Heard


def test_a_store_that_lacks_keywords_is_refused_with_the_list() -> None:
    class Old(MemoryStore):
        async def reserve_credits(  # type: ignore[override]
            self,
            user_id: str,
            amount: int,
            operation_type: str,
            metadata: Metadata = None,
            min_balance: int = 5,
            *,
            idempotency_key: str | None = None,
        ) -> ReserveResult:
            raise AssertionError

        async def get_available(self, user_id: str) -> Any:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(ConfigError) as caught:
        CreditManager(Old())
    message = str(caught.value)
    assert "reserve_credits(ttl_seconds=)" in message
    assert "reserve_credits(team_id=)" in message
    assert "get_available(team_id=)" in message
    assert "idempotency_key" not in message

    class Anything(MemoryStore):
        async def get_available(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

    CreditManager(Anything())
    with pytest.raises(ConfigError, match=r"lacks: .*get_balance"):
        CreditManager(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option",
    [
        {"ttl_seconds": 0},
        {"grace_seconds": 3601},
        {"overage": "ignore"},
        {"missing_usage": "free"},
        {"maintain_every_seconds": 0},
        {"pricing_refresh_seconds": -1},
    ],
)
def test_settings_out_of_range_are_refused(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=name):
        CreditManager(MemoryStore(), **option)


async def test_maintenance_reaps_sweeps_and_prunes() -> None:
    clock = ManualClock()
    async with CreditManager(MemoryStore(clock=clock), maintain_every_seconds=0.02) as manager:
        heard = Heard(manager)
        await manager.setup()
        await manager.add_credits("u", 100)
        held = await manager.reserve("u", 10)
        clock.advance(700)
        await asyncio.sleep(0.06)
        (event,) = await heard.of("reservation_expired")
        assert (event.user_id, event.data["reservation_id"]) == ("u", held.reservation_id)
        clock.advance(31 * 86_400)
        await asyncio.sleep(0.06)
        with pytest.raises(ReservationNotFoundError):
            await manager.get_reservation("u", held.reservation_id or "")


async def test_expired_credits_are_announced() -> None:
    clock = ManualClock()
    async with CreditManager(MemoryStore(clock=clock), maintain_every_seconds=None) as manager:
        heard = Heard(manager, "credits.expired")
        now = clock()
        await manager.add_credits("u", 50, "grant", None, now.replace(hour=1))
        assert (await manager.maintain()).credits_expired == 0
        clock.advance(7200)
        assert (await manager.maintain()).credits_expired == 50
        assert [event.data["amount"] for event in await heard.of("expired")] == [50]


async def test_maintenance_has_one_holder_and_stands_a_store_without_it() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def reap_expired_reservations(self, *, limit: int = 1000) -> ReapResult:
            entered.set()
            await leave.wait()
            raise NotSupportedError("no reaper here")

        async def sweep_expired_credits(self, dry_run: bool = False) -> SweepResult:
            return SweepResult(amount=7)

    store = Slow()
    async with (
        CreditManager(store, maintain_every_seconds=None) as one,
        CreditManager(store, maintain_every_seconds=None) as other,
    ):
        first = asyncio.create_task(one.maintain())
        await entered.wait()
        assert (await other.maintain()).skipped
        leave.set()
        assert (await first).credits_expired == 7
        assert not (await other.maintain()).skipped


def test_a_manager_outlives_a_loop_but_serves_one_at_a_time() -> None:
    manager = CreditManager(MemoryStore())

    async def use() -> int:
        await manager.add_credits("u", 10)
        return (await manager.get_balance("u")).balance

    assert asyncio.run(use()) == 10
    assert asyncio.run(use()) == 20

    async def two_loops() -> None:
        await use()
        with pytest.raises(ConfigError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use())
        await manager.aclose()

    asyncio.run(two_loops())


def test_code_without_a_loop_gets_a_private_one() -> None:
    manager = CreditManager(MemoryStore())
    threads = threading.active_count()
    manager.portal.call(lambda: manager.publish_pricing(PRICING), instead="await it")
    manager.portal.call(lambda: manager.add_credits("u", 10), instead="await it")
    assert manager.portal.call(lambda: manager.get_balance("u"), instead="await it").balance == 10
    assert threading.active_count() == threads + 1
    manager.close()
    manager.close()
    assert threading.active_count() == threads


async def test_waiting_on_the_loops_own_thread_is_refused() -> None:
    async with CreditManager(MemoryStore()) as manager:
        with pytest.raises(ConfigError, match=r"await manager\.get_balance"):
            manager.portal.call(lambda: manager.get_balance("u"), instead="use `await manager.get_balance(...)`")
        found = await asyncio.to_thread(
            manager.portal.call, lambda: manager.get_balance("u"), instead="use `await manager.get_balance(...)`"
        )
        assert found.balance == 0
