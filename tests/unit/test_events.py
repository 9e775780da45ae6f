from __future__ import annotations

import asyncio
import logging

import pytest

from ducto.errors import ConfigError
from ducto.events import Event, EventEmitter
from tests.unit.manager_support import settle_down


async def test_sync_and_async_handlers_get_events_in_order_and_by_name() -> None:
    events = EventEmitter()
    all_of_them: list[str] = []
    added: list[Event] = []

    async def take(event: Event) -> None:
        await asyncio.sleep(0)
        added.append(event)

    events.on("*", lambda event: all_of_them.append(event.name))
    events.on("credits.added", take)
    events.emit("credits.reserved", user_id="u")
    events.emit("credits.added", user_id="u", data={"amount": 1})
    events.emit("credits.added", user_id="v", data={"amount": 2})
    await settle_down()
    assert all_of_them == ["credits.reserved", "credits.added", "credits.added"]
    assert [(event.user_id, event.data["amount"]) for event in added] == [("u", 1), ("v", 2)]
    assert added[0].id != added[1].id
    assert added[0].occurred_at.tzinfo is not None
    with pytest.raises(TypeError):
        added[0].data["amount"] = 3  # type: ignore[index]


async def test_a_raising_and_a_hanging_handler_do_not_hurt_others(caplog: pytest.LogCaptureFixture) -> None:
    events = EventEmitter()
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("boom")

    async def hanging(event: Event) -> None:
        await asyncio.Event().wait()

    events.on("*", broken)
    events.on("*", hanging)
    events.on("*", heard.append)
    for _ in range(3):
        events.emit("credits.added")
    await settle_down()
    assert len(heard) == 3
    assert sum("boom" in (record.exc_text or "") for record in caplog.records) == 3
    assert await events.drain(seconds=0.01) == 3  # the one that hangs, and the two behind it


async def test_an_overflowing_queue_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    events = EventEmitter(queue_size=2)
    heard: list[int] = []
    events.on("credits.added", lambda event: heard.append(event.data["n"]))
    with caplog.at_level(logging.WARNING):
        for n in range(5):
            events.emit("credits.added", data={"n": n})
    await settle_down()
    assert heard == [3, 4]
    assert events.dropped == 3
    assert "too slow" in caplog.text


async def test_unsubscribing_and_unknown_names() -> None:
    events = EventEmitter()
    heard: list[Event] = []
    stop = events.on("credits.added", heard.append)
    assert events.wants("credits.added")
    assert not events.wants("credits.reserved")
    stop()
    stop()
    assert not events.listening
    events.emit("credits.added")
    await settle_down()
    assert heard == []
    with pytest.raises(ConfigError, match="There is no event"):
        events.on("credits.spent", heard.append)  # type: ignore[arg-type]


async def test_drain_waits_for_what_is_queued() -> None:
    events = EventEmitter()
    heard: list[Event] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0.01)
        heard.append(event)

    events.on("*", slow)
    for _ in range(3):
        events.emit("credits.added")
    assert await events.drain(seconds=5) == 0
    assert len(heard) == 3
