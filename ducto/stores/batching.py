"""Natural batching: calls that queue up while the last round trip is in flight travel together in the next one.

A lone call waits for nobody: it goes at once, as a batch of one. Nothing is ever delayed in the hope of company.

Batches of one process never meet on an account: an account that has a call in flight keeps its later calls back until
the answer is there (`AccountTurns`), also across verbs. So one busy account makes large batches, not lock waits. What
another process holds locked is answered as deferred, at once, and waits by itself, without the rest of its batch.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ducto.errors import StoreError

__all__ = ["AccountTurns", "Answers", "Batcher"]

Reply = TypeVar("Reply")

Item = TypeVar("Item", covariant=True)

#: From this size on the next batch of the same accounts is sent before the answers to this one are read.
_MANY = 16


class Answers(Protocol[Item]):
    """What a batch was answered, before it is read."""

    @property
    def all_served(self) -> bool:
        """Whether it is already certain that no item was left out."""

    def read(self) -> Sequence[Item | None]:
        """The answer to each item, in order, `None` for one whose account is locked elsewhere. Raises `StoreError`."""


#: One call of a store's batched function: the items, and whether to wait for locked accounts.
Send = Callable[[Sequence[Any], bool], Awaitable[Answers[Reply]]]


class _Entry(Generic[Reply]):
    """A call that waits for its answer."""

    __slots__ = ("account", "batcher", "future", "item")

    def __init__(self, account: str, item: Any, future: asyncio.Future[Reply], batcher: Batcher[Reply]) -> None:
        self.account: str = account
        self.item: Any = item
        self.future: asyncio.Future[Reply] = future
        self.batcher: Batcher[Reply] = batcher

    def answer(self, reply: Reply) -> None:
        if not self.future.done():  # Its caller may have been cancelled, which changes nothing for the others.
            self.future.set_result(reply)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class AccountTurns:
    """Which accounts have a call in flight, and which entries wait for its end. Shared by all batchers of a store."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Entry[Any]]] = {}

    def kept_back(self, entry: _Entry[Any]) -> bool:
        """Keep `entry` back if its account has a call in flight."""
        queue = self._waiting.get(entry.account)
        if queue is None:
            return False
        queue.append(entry)
        return True

    def take(self, account: str) -> None:
        self._waiting[account] = deque()

    def give_back(self, account: str) -> None:
        """The account has no call in flight any more: what waited for it queues up again."""
        for entry in self._waiting.pop(account, ()):
            entry.batcher.enqueue(entry)


def _fail_all(entries: Sequence[_Entry[Any]], error: BaseException) -> None:
    """Nobody may be left waiting. What is no ordinary error, as the cancellation of a loop that ends, goes on."""
    ordinary = isinstance(error, Exception)
    told = error if ordinary else StoreError("The program ended before the store answered.", retryable=True)
    for entry in entries:
        entry.fail(told)
    if not ordinary:
        raise error


class Batcher(Generic[Reply]):
    """Collects the calls of one function into batches.

    `send` calls the function; `lanes` batches of at most `max_items` may be in flight at once, and besides them
    `waiting_lanes` calls for accounts that are locked elsewhere. With several free lanes the queue is shared among
    them in parts of at least `min_items`. `drop_abandoned` leaves out what its caller gave up before it was sent;
    right where nobody would learn of the outcome, wrong for a charge of work that was done.
    """

    def __init__(
        self,
        send: Send[Reply],
        turns: AccountTurns,
        *,
        lanes: int = 2,
        waiting_lanes: int = 2,
        max_items: int = 512,
        min_items: int = 64,
        drop_abandoned: bool = False,
    ) -> None:
        self._send = send
        self._turns = turns
        self._lanes = lanes
        self._max_items = max_items
        self._min_items = min_items
        self._drop_abandoned = drop_abandoned
        self._ready: deque[_Entry[Reply]] = deque()
        self._running = 0
        self._start_is_due = False
        self._waiting_lanes = asyncio.Semaphore(waiting_lanes)
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, account: str, item: Any) -> Reply:
        """The answer to `item`. Cancelling the caller ends his waiting, never the call that carries the item."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.enqueue(_Entry(account, item, future, self))
        return await future

    async def drain(self, *, timeout_seconds: float) -> None:
        """Wait until nothing is queued or in flight, but not longer than `timeout_seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while (self._tasks or self._ready) and loop.time() < deadline:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)

    def enqueue(self, entry: _Entry[Reply]) -> None:
        if self._turns.kept_back(entry):
            return
        self._ready.append(entry)
        if self._running < self._lanes and not self._start_is_due:
            self._start_lane()

    def _start_lane(self) -> None:
        # It begins with the next turn of the loop, so that all callers whom this turn wakes are in the same batch.
        self._start_is_due = True
        self._spawn(self._lane())

    def _spawn(self, work: Any) -> None:
        # A batch belongs to many callers: it runs in nobody's context.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[_Entry[Reply]]:
        """The next batch, in account order, its accounts taken; empty where nothing may go."""
        free = max(1, self._lanes - self._running)
        limit = min(self._max_items, max(self._min_items, -(-len(self._ready) // free)))
        batch: list[_Entry[Reply]] = []
        mine: set[str] = set()
        while self._ready and len(batch) < limit:
            entry = self._ready.popleft()
            if self._drop_abandoned and entry.future.cancelled():
                continue
            if entry.account not in mine:
                if self._turns.kept_back(entry):
                    continue
                self._turns.take(entry.account)
                mine.add(entry.account)
            batch.append(entry)
        batch.sort(key=lambda each: each.account)
        return batch

    async def _lane(self) -> None:
        self._start_is_due = False
        batch = self._next()
        if not batch:
            return
        self._running += 1
        if self._ready and self._running < self._lanes:
            self._start_lane()
        try:
            while batch:
                await self._deliver(batch)
                batch = self._next()
        finally:
            self._running -= 1

    async def _deliver(self, batch: list[_Entry[Reply]]) -> None:
        deferred: dict[str, list[_Entry[Reply]]] = {}
        taken = dict.fromkeys(entry.account for entry in batch)

        async def give_back_early() -> None:
            for account in taken:
                self._turns.give_back(account)
            taken.clear()
            for _ in range(2):  # The next batch is made in the next turn of the loop, and sent in the one after.
                await asyncio.sleep(0)

        try:
            for entry in await self._call(batch, wait=False, served=give_back_early):
                deferred.setdefault(entry.account, []).append(entry)
        finally:
            for account, entries in deferred.items():
                self._spawn(self._wait_for(account, entries))
            for account in taken:
                if account not in deferred:
                    self._turns.give_back(account)

    async def _wait_for(self, account: str, entries: list[_Entry[Reply]]) -> None:
        """Send the entries of an account that is locked elsewhere, waiting for the lock."""
        try:
            async with self._waiting_lanes:
                for entry in await self._call(entries, wait=True):
                    entry.fail(StoreError("The account is locked; try again.", retryable=True, busy=True))
        finally:
            self._turns.give_back(account)

    async def _call(
        self, batch: list[_Entry[Reply]], *, wait: bool, served: Callable[[], Awaitable[None]] | None = None
    ) -> list[_Entry[Reply]]:
        """Send a batch and hand out the answers; returns the deferred entries.

        `served` is called for a large batch once all of it has been served, before the answers are read.
        """
        try:
            answers = await self._send([entry.item for entry in batch], wait)
        except StoreError as error:
            # One account's lock that was not had in time is not had by asking again for each of its items.
            if len(batch) > 1 and not (wait and error.busy):
                return await self._one_by_one(batch, wait=wait)
            _fail_all(batch, error)
            return []
        except BaseException as error:  # noqa: BLE001 - nobody may be left waiting, whatever happened
            _fail_all(batch, error)
            return []
        deferred = []
        try:
            if served is not None and len(batch) >= _MANY and answers.all_served:
                await served()
            for entry, reply in zip(batch, answers.read(), strict=True):
                if reply is None:
                    deferred.append(entry)
                else:
                    entry.answer(reply)
        except BaseException as error:  # noqa: BLE001 - nobody may be left waiting, whatever happened
            _fail_all(batch, error)
        return deferred

    async def _one_by_one(self, batch: list[_Entry[Reply]], *, wait: bool) -> list[_Entry[Reply]]:
        """After a batch that failed as a whole: each item for itself, with the same keys, so that what is wrong with
        one is not the others' fault. Where the store cannot serve even one, the others are not tried.
        """
        deferred: list[_Entry[Reply]] = []
        for number, entry in enumerate(batch):
            try:
                reply = (await self._send([entry.item], wait)).read()[0]
            except StoreError as error:
                entry.fail(error)
                if error.retryable:
                    _fail_all(batch[number + 1 :], error)
                    break
            except BaseException as error:  # noqa: BLE001 - nobody may be left waiting, whatever happened
                _fail_all(batch[number:], error)
                break
            else:
                if reply is None:
                    deferred.append(entry)
                else:
                    entry.answer(reply)
        return deferred
