"""The batcher by itself, over a `send` in this process: what goes together, what waits, who gets which answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ducto.errors import StoreError
from ducto.stores.batching import AccountTurns, Batcher


class Said:
    """The answers to a batch; notes in `log` when they are read."""

    def __init__(self, replies: Sequence[str | None], log: list[str]) -> None:
        self._replies = replies
        self._log = log
        self.all_served = None not in replies

    def read(self) -> Sequence[str | None]:
        self._log.append("read")
        return self._replies


class Recorder:
    """Answers each item with `reply to ITEM`, after `gate` opens; remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], bool]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.locked: set[str] = set()
        self.poison: dict[str, StoreError] = {}
        self.busy = False
        self.log: list[str] = []

    async def __call__(self, items: Sequence[str], wait: bool) -> Said:
        self.log.append("sent")
        self.calls.append((list(items), wait))
        await self.gate.wait()
        if wait and self.busy:
            raise StoreError("locked", retryable=True, busy=True)
        for item in items:
            if item in self.poison:
                raise self.poison[item]
        replies = [None if item in self.locked and not wait else f"reply to {item}" for item in items]
        return Said(replies, self.log)


async def settled(*tasks: asyncio.Task[str]) -> list[str | BaseException]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)


def submit(batcher: Batcher[str], *items: str) -> list[asyncio.Task[str]]:
    """An item is `account/anything`."""
    return [asyncio.ensure_future(batcher.submit(item.split("/")[0], item)) for item in items]


async def test_a_lone_call_goes_at_once_and_alone() -> None:
    send = Recorder()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    assert await batcher.submit("a", "a") == "reply to a"
    assert send.calls == [(["a"], False)]


async def test_what_queues_up_while_a_call_is_in_flight_goes_together_in_account_order() -> None:
    send = Recorder()
    send.gate.clear()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    first = submit(batcher, "m")
    await asyncio.sleep(0.01)
    rest = submit(batcher, "z", "b", "a/1", "a/2")
    await asyncio.sleep(0.01)
    send.gate.set()
    assert await settled(*first, *rest) == [f"reply to {item}" for item in ("m", "z", "b", "a/1", "a/2")]
    assert send.calls == [(["m"], False), (["a/1", "a/2", "b", "z"], False)]


async def test_batches_are_bounded() -> None:
    send = Recorder()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1, max_items=10)
    await settled(*submit(batcher, *(f"user{number}" for number in range(35))))
    assert [len(items) for items, _ in send.calls] == [10, 10, 10, 5]


async def test_an_account_is_never_in_two_calls_at_once_and_keeps_its_order() -> None:
    send = Recorder()
    send.gate.clear()
    turns = AccountTurns()
    reserves: Batcher[str] = Batcher(send, turns, lanes=2)
    deducts: Batcher[str] = Batcher(send, turns, lanes=2)
    tasks = submit(reserves, "a/1")
    await asyncio.sleep(0.01)
    tasks += submit(deducts, "a/2", "b/1")
    tasks += submit(reserves, "a/3")
    await asyncio.sleep(0.01)
    assert send.calls == [(["a/1"], False), (["b/1"], False)]
    send.gate.set()
    await settled(*tasks)
    assert sorted(items for items, _ in send.calls[2:]) == [["a/2"], ["a/3"]]


async def test_calls_of_an_account_are_sent_in_the_order_in_which_they_came() -> None:
    send = Recorder()
    send.gate.clear()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=2)
    tasks = []
    for item in ("a/1", "a/2", "b/1", "a/3"):
        tasks += submit(batcher, item)
        await asyncio.sleep(0.01)
    assert send.calls == [(["a/1"], False), (["b/1"], False)]
    send.gate.set()
    await settled(*tasks)
    assert send.calls[2:] == [(["a/2", "a/3"], False)]


async def test_a_locked_account_goes_on_alone_and_delays_nobody() -> None:
    send = Recorder()
    send.locked = {"b/1", "b/2"}
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    tasks = submit(batcher, "a", "b/1", "b/2", "c")
    assert await settled(*tasks) == [f"reply to {item}" for item in ("a", "b/1", "b/2", "c")]
    assert send.calls == [(["a", "b/1", "b/2", "c"], False), (["b/1", "b/2"], True)]


async def test_a_batch_that_fails_is_repeated_item_by_item() -> None:
    send = Recorder()
    send.poison = {"b": StoreError("b is broken")}
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    a, b, c = await settled(*submit(batcher, "a", "b", "c"))
    assert (a, str(b), c) == ("reply to a", "b is broken", "reply to c")
    assert [items for items, _ in send.calls] == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert await batcher.submit("b", "b/again") == "reply to b/again"  # The account is free again.


async def test_where_the_store_is_away_not_every_item_is_tried() -> None:
    send = Recorder()
    send.poison = {f"u{number}": StoreError("away", retryable=True) for number in range(50)}
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    answers = await settled(*submit(batcher, *send.poison))
    assert all(isinstance(answer, StoreError) and answer.retryable for answer in answers)
    assert len(send.calls) == 2


async def test_a_lock_that_is_not_had_is_not_asked_for_by_every_item_of_the_account() -> None:
    send = Recorder()
    send.locked = {"a/1", "a/2", "a/3"}
    tasks = submit(Batcher(send, AccountTurns(), lanes=1), "a/1", "a/2", "a/3")
    send.busy = True
    answers = await settled(*tasks)
    assert all(isinstance(answer, StoreError) and answer.busy for answer in answers)
    assert len(send.calls) == 2


@pytest.mark.parametrize("drop", [True, False])
async def test_a_cancelled_caller_stops_waiting_and_nothing_else_happens(drop: bool) -> None:
    send = Recorder()
    send.gate.clear()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1, drop_abandoned=drop)
    sent, kept = submit(batcher, "a/1", "b/1")
    await asyncio.sleep(0.01)
    queued = submit(batcher, "c/1", "d/1")
    await asyncio.sleep(0.01)
    sent.cancel()
    queued[0].cancel()
    await asyncio.sleep(0.01)
    send.gate.set()
    assert await settled(kept, queued[1]) == ["reply to b/1", "reply to d/1"]
    assert send.calls[0][0] == ["a/1", "b/1"]
    assert send.calls[1][0] == (["d/1"] if drop else ["c/1", "d/1"])


@pytest.mark.parametrize(("items", "early"), [(15, False), (16, True)])
async def test_the_next_batch_of_an_account_is_sent_before_the_answers_to_a_large_one_are_read(
    items: int, early: bool
) -> None:
    send = Recorder()
    turns = AccountTurns()
    reserves: Batcher[str] = Batcher(send, turns)
    deducts: Batcher[str] = Batcher(send, turns)
    send.gate.clear()
    tasks = submit(reserves, *(f"a/{number}" for number in range(items)))
    await asyncio.sleep(0.01)
    tasks += submit(deducts, "a/x")
    await asyncio.sleep(0.01)
    assert send.log == ["sent"]
    send.gate.set()
    assert await settled(*tasks) == [f"reply to a/{number}" for number in range(items)] + ["reply to a/x"]
    assert send.log == (["sent", "sent", "read", "read"] if early else ["sent", "read", "sent", "read"])


async def test_answers_that_cannot_be_read_leave_nobody_waiting() -> None:
    class Unreadable(Said):
        def read(self) -> Sequence[str | None]:
            raise StoreError("not understood", retryable=False)

    async def send(items: Sequence[str], wait: bool) -> Said:
        return Unreadable(["" for _ in items], [])

    turns = AccountTurns()
    for number in (1, 20):
        batcher: Batcher[str] = Batcher(send, turns)
        answers = await settled(*submit(batcher, *(f"a/{each}" for each in range(number))))
        assert all(isinstance(answer, StoreError) for answer in answers)


async def test_draining_waits_for_all_that_is_under_way() -> None:
    send = Recorder()
    send.gate.clear()
    batcher: Batcher[str] = Batcher(send, AccountTurns(), lanes=1)
    tasks = submit(batcher, "a", "b")
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().call_later(0.05, send.gate.set)
    await batcher.drain(timeout_seconds=5)
    assert await settled(*tasks) == ["reply to a", "reply to b"]
