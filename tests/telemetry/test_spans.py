"""A span for each metered call: its parent, its attributes, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

import ducto
from ducto.errors import InsufficientCreditsError, StoreError, UnknownModelError
from ducto.manager import CreditManager
from ducto.models import DeductionResult
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from ducto.usage import UsageMetrics
from tests.middleware.support import PRICING, Books, open_books
from tests.telemetry.support import CALL, Telemetry, events_handled, labels

USAGE = UsageMetrics(model="m", input_tokens=10, cache_read_tokens=3, output_tokens=4, reasoning_tokens=2)


async def settled(books: Books, **options: Any) -> None:
    async with books.manager.meter("alice", estimate=USAGE, **options) as call:
        call.record(USAGE)


async def test_span_has_what_was_asked_for_used_and_charged(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        await settled(books, operation_type="openai.chat")
    span = telemetry.span
    assert span.name == "chat m"
    attributes = dict(span.attributes or {})
    assert {name: attributes[name] for name in attributes if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 13,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }
    cost = 13 + 2 * 6
    assert attributes["ducto.credits.charged"] == cost
    assert attributes["ducto.credits.reserved"] >= cost
    assert attributes["ducto.outcome"] == "charged"
    assert span.status.status_code is StatusCode.UNSET


async def test_span_is_a_child_of_the_callers_though_another_task_settles(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        with telemetry.tracer.start_as_current_span("caller") as caller:
            call = books.manager.meter("alice", estimate=USAGE)
            await call.start()

        async def elsewhere() -> None:
            with telemetry.tracer.start_as_current_span("another request"):
                await call.settle(USAGE)

        await asyncio.create_task(elsewhere())
    span = telemetry.span
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    assert span.end_time is not None
    assert caller.end_time is not None  # type: ignore[attr-defined]
    assert span.end_time > caller.end_time  # type: ignore[attr-defined]


async def test_span_covers_the_reserve_and_the_settle(telemetry: Telemetry) -> None:
    class SlowStore(MemoryStore):
        async def reserve_credits(self, *args: Any, **options: Any) -> Any:
            await asyncio.sleep(0.05)
            return await super().reserve_credits(*args, **options)

    async with CreditManager(SlowStore(), maintain_every_seconds=None) as manager:
        telemetry.instrument(manager)
        await manager.add_credits("alice", 100, "grant")
        async with manager.meter("alice", estimate=5, model="m") as call:
            call.record(5)
    span = telemetry.span
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 45_000_000
    # What the model took is measured from the admission on.
    (count, seconds), *_ = telemetry.points("gen_ai.client.operation.duration").values()
    assert count == 1
    assert seconds < 0.045


async def test_concurrent_calls_keep_their_own_parents(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)

        async def request(number: int) -> tuple[int, int]:
            with telemetry.tracer.start_as_current_span(f"request {number}") as parent:
                async with books.manager.meter("alice", estimate=USAGE, operation_type=f"op{number}") as call:
                    await asyncio.sleep(0.001 * (number % 3))
                    call.record(USAGE)
                return number, parent.get_span_context().span_id

        parents = dict(await asyncio.gather(*(request(number) for number in range(20))))
    assert len(telemetry.spans) == 20
    for span in telemetry.spans:
        number = int(span.name.split()[0].removeprefix("op"))
        assert span.parent is not None
        assert span.parent.span_id == parents[number]


def test_a_sync_function_in_a_thread_has_its_span_as_parent(telemetry: Telemetry) -> None:
    store = MemoryStore()
    manager = CreditManager(store, maintain_every_seconds=None)
    telemetry.instrument(manager)
    manager.portal.call(lambda: manager.add_credits("alice", 100, "grant"), instead="-")

    @ducto.metered(manager, user_id="alice", estimate=5, usage=lambda _: 3)
    def work() -> str:
        return "done"

    with telemetry.tracer.start_as_current_span("thread") as parent:
        work()
    manager.close()
    assert telemetry.span.parent is not None
    assert telemetry.span.parent.span_id == parent.get_span_context().span_id


async def test_refusals_end_the_span_with_their_code_and_no_message(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        with pytest.raises(InsufficientCreditsError):
            await books.manager.reserve("alice", 10_000_000, model="m")
        with pytest.raises(UnknownModelError):
            await books.manager.reserve("alice", UsageMetrics(model="no such model", input_tokens=1))
        await events_handled()
    refused, unknown = telemetry.spans
    assert dict(refused.attributes or {})["error.type"] == "insufficient_credits"
    assert dict(unknown.attributes or {})["error.type"] == "price_unknown"
    for span in telemetry.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == dict(span.attributes or {})["error.type"]
        assert not span.events


async def test_released_and_failed_calls(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        with pytest.raises(ZeroDivisionError):
            async with books.manager.meter("alice", estimate=USAGE):
                _ = 1 / 0
    assert dict(telemetry.span.attributes or {})["ducto.outcome"] == "released"
    assert telemetry.points("ducto.calls") == {labels(**CALL, ducto__outcome="released"): 1}
    assert telemetry.points("ducto.credits.charged") == {}


async def test_a_hold_that_expires_ends_its_span(telemetry: Telemetry) -> None:
    clock = ManualClock()
    async with CreditManager(MemoryStore(clock=clock), maintain_every_seconds=None) as manager:
        telemetry.instrument(manager)
        await manager.add_credits("alice", 100, "grant")
        await manager.reserve("alice", 5, model="m")
        assert telemetry.spans == []
        clock.advance(3600)
        await manager.maintain()
        await events_handled()
    assert dict(telemetry.span.attributes or {})["ducto.outcome"] == "expired"


async def test_a_charge_without_reservation_and_one_for_a_reservation_from_elsewhere(telemetry: Telemetry) -> None:
    async with open_books() as books:
        elsewhere = await books.manager.reserve("alice", 50, model="m")
        telemetry.instrument(books.manager)
        await books.manager.charge_credits("alice", 7, "report", model="m")
        with telemetry.tracer.start_as_current_span("worker") as worker:
            await books.manager.deduct("alice", USAGE, reservation_id=elsewhere.reservation_id)
    report, settle = telemetry.spans
    assert (report.name, settle.name) == ("report m", "settle m")
    assert dict(report.attributes or {})["ducto.credits.charged"] == 7
    assert settle.parent is not None
    assert settle.parent.span_id == worker.get_span_context().span_id


async def test_repeating_makes_no_second_span_and_counts_nothing_twice(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        first = await books.manager.reserve("alice", 50, model="m", idempotency_key="k")
        again = await books.manager.reserve("alice", 50, model="m", idempotency_key="k")
        assert again.replayed
        await books.manager.deduct("alice", 30, reservation_id=first.reservation_id)
        repeated = await books.manager.deduct("alice", 30, reservation_id=first.reservation_id)
        assert repeated.replayed
    assert len(telemetry.spans) == 1
    assert telemetry.points("ducto.credits.reserved") == {labels(**CALL): 50}
    assert telemetry.points("ducto.credits.charged") == {labels(**CALL): 30}


async def test_a_charge_whose_answer_was_lost_is_counted_once(telemetry: Telemetry) -> None:
    class LosesTheFirstAnswer(MemoryStore):
        lost = False

        async def deduct_credits(self, *args: Any, **options: Any) -> DeductionResult:
            result = await super().deduct_credits(*args, **options)
            if not self.lost:
                self.lost = True
                raise StoreError("The connection broke.", retryable=True)
            return result

    async with CreditManager(LosesTheFirstAnswer(), maintain_every_seconds=None) as manager:
        telemetry.instrument(manager)
        await manager.add_credits("alice", 100, "grant")
        async with manager.meter("alice", estimate=9, model="m") as call:
            call.record(9)
    assert telemetry.points("ducto.credits.charged") == {labels(**CALL): 9}
    assert dict(telemetry.span.attributes or {})["ducto.outcome"] == "charged"


@pytest.mark.parametrize("with_ids", [False, True])
async def test_ids_are_on_spans_only_when_asked_for(telemetry: Telemetry, with_ids: bool) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager, user_ids_on_spans=with_ids)
        call = books.manager.meter("alice", estimate=USAGE)
        reserved = await call.start()
        result = await call.settle(USAGE)
    attributes = dict(telemetry.span.attributes or {})
    ids = {"alice", reserved.reservation_id, result.transaction_id}
    assert ids & set(attributes.values()) == (ids if with_ids else set())
    if not with_ids:
        # The ids of reservations hold the user's id in another spelling.
        assert str(reserved.reservation_id) not in telemetry.everything()


async def test_the_remover_ends_it_and_closes_what_is_open(telemetry: Telemetry) -> None:
    async with open_books() as books:
        remove = telemetry.instrument(books.manager)
        call = books.manager.meter("alice", estimate=USAGE)
        await call.start()
        remove()
        remove()
        assert dict(telemetry.span.attributes or {})["ducto.outcome"] == "unknown"
        await call.settle(USAGE)
        await settled(books)
        assert not books.manager.events.listening
    assert len(telemetry.spans) == 1
    assert telemetry.points("ducto.calls") == {}


async def test_an_observer_that_fails_hurts_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def admission_begins(self, terms: Any) -> Any:
            raise ValueError("broken")

        def charge_begins(self, what: Any) -> Any:
            def ended(outcome: Any) -> None:
                raise ValueError("broken")

            return ended

        def release_begins(self, reservation_id: str) -> Any:
            return lambda outcome: None

    async with open_books() as books:
        books.manager.observers.add(Broken())
        await settled(books)
        assert await books.spent() == 25
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_pricing_is_what_the_figures_above_assume() -> None:
    assert PRICING["models"]["m"]["input"] == 1_000_000
