"""Charging in the background what the store did not answer for: our own calls', and those of processes that died."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ducto.events import EventEmitter
from ducto.journal import Adopted, adopt_segments
from ducto.manager.entries import Owed, owed_of
from ducto.manager.journaling import CallJournal, Debt

__all__ = ["JournalReport", "ReplayOutcome", "Replayer"]

logger: logging.Logger = logging.getLogger("ducto.journal")

#: `booked` also where the store had booked it before; `refused` for good; `kept` where it did not answer.
ReplayOutcome = Literal["booked", "refused", "kept"]

#: Debts that are tried at once; also how many find out, each round, that the store is still down.
PORTION = 64
FIRST_PAUSE_SECONDS = 0.5
#: While the store is down.
LONGEST_PAUSE_SECONDS = 10.0
#: For a debt that fails while others are booked.
LONGEST_OWN_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalReport:
    """`outstanding` is what the store has still not answered for, with what other processes hold left out."""

    booked: int = 0
    refused: int = 0
    outstanding: int = 0


class Replayer:
    """Works off the debts of a `CallJournal`, and adopts what processes left that are not there any more.

    `replay` asks the store once for one of them, and handles its answer. For one event loop.
    """

    def __init__(
        self, journal: CallJournal, replay: Callable[[Debt], Awaitable[ReplayOutcome]], events: EventEmitter
    ) -> None:
        self._journal = journal
        self._replay = replay
        self._events = events
        self._adopted: list[Adopted] = []
        self._ignored: set[Path] = set()
        self._failed_rounds = 0
        self._adopting: asyncio.Future[list[Adopted]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    def start(self) -> None:
        """Work from now on, until `aclose`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ducto journal")

    async def aclose(self) -> None:
        """Stop, and give back what was adopted and is not done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self._adopting is not None and not self._adopting.done():
            await asyncio.wait((self._adopting,))
            await self._take(self._adopting)
        for one in self._adopted:
            one.give_back()
        self._adopted.clear()

    async def round(self) -> JournalReport:
        """Adopt what is left, and try all debts that are due. Stops at the first portion that is not answered."""
        async with self._one_at_a_time:
            await self._adopt()
            booked = refused = 0
            now = time.monotonic()
            due = [debt for debt in self._journal.later if debt.not_before <= now]
            for portion in (due[at : at + PORTION] for at in range(0, len(due), PORTION)):
                outcomes = await asyncio.gather(*(self._tried(debt) for debt in portion))
                booked += outcomes.count("booked")
                refused += outcomes.count("refused")
                if outcomes.count("kept") == len(outcomes):
                    self._is_down()
                    break
                self._answers_again()
            return JournalReport(booked=booked, refused=refused, outstanding=len(self._journal.later))

    async def _run(self) -> None:
        while True:
            try:
                report = await self.round()
            except Exception:
                logger.exception("Replaying the journal failed, and is tried again.")
            else:
                if report.booked or report.refused:
                    logger.warning(
                        "%d settles were booked from the journal, %d refused, %d are outstanding.",
                        report.booked,
                        report.refused,
                        report.outstanding,
                    )
            await asyncio.sleep(self._pause_seconds())

    def _pause_seconds(self) -> float:
        pause = self._journal.replay_every_seconds
        if self._journal.later:
            grown = FIRST_PAUSE_SECONDS * 2.0 ** min(self._failed_rounds, 10)
            pause = min(grown, LONGEST_PAUSE_SECONDS) if self._failed_rounds else min(pause, LONGEST_PAUSE_SECONDS)
        return pause * random.uniform(0.5, 1.0)

    async def _tried(self, debt: Debt) -> ReplayOutcome:
        outcome = await self._replay(debt)
        if outcome == "kept":
            debt.failures += 1
            pause = min(LONGEST_OWN_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(debt.failures, 12))
            debt.not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)
        else:
            self._journal.later.pop(debt, None)
        return outcome

    def _is_down(self) -> None:
        if not self._failed_rounds:
            logger.warning("The store does not answer: %d settles wait in the journal.", len(self._journal.later))
        self._failed_rounds += 1

    def _answers_again(self) -> None:
        """The store was down and is not any more: nobody needs to wait."""
        if self._failed_rounds:
            self._failed_rounds = 0
            for debt in self._journal.later:
                debt.not_before = 0.0

    async def _adopt(self) -> None:
        loop = asyncio.get_running_loop()
        held = len(self._adopted)
        work = partial(adopt_segments, self._journal.folder, held=held, ignored=self._ignored)
        self._adopting = loop.run_in_executor(None, work)
        try:
            # Whoever is cancelled here leaves the thread running, and `aclose` takes what it brings.
            await asyncio.shield(self._adopting)
        except OSError as error:
            logger.error("The journal in %s cannot be read (%s).", self._journal.folder.path, error.strerror)  # noqa: TRY400 - the errno is all there is to say
            return
        await self._take(self._adopting)

    async def _take(self, adopting: asyncio.Future[list[Adopted]]) -> None:
        if adopting.cancelled() or adopting.exception() is not None:
            return
        for one in adopting.result():
            if one.corrupt_at is not None:
                self._events.emit(
                    "journal.corrupt", data={"pieces": one.corrupt_pieces, "put_aside_at": str(one.corrupt_at)}
                )
            if not one.records:
                continue
            self._adopted.append(one)
            for read, (number, record) in enumerate(list(one.records.items())):
                if read % PORTION == 0:  # There may be hundreds of thousands, and others wait for the loop.
                    await asyncio.sleep(0)
                done = partial(self._finished, one, number)
                try:
                    owed: Owed = owed_of(record.entry)
                except ValueError as error:
                    await self._journal.put_aside(record.entry, error)
                    logger.error("A record of %s was put aside: %s.", one.segment.path, error)  # noqa: TRY400 - the message has all
                    done()
                    continue
                self._journal.later[Debt(owed, done)] = None

    def _finished(self, one: Adopted, number: int) -> None:
        try:
            one.finished(number)
        except OSError as error:
            logger.error("The journal %s could not be removed (%s).", one.segment.path, error.strerror)  # noqa: TRY400 - the errno is all there is to say
        if not one.records and one in self._adopted:
            self._adopted.remove(one)
