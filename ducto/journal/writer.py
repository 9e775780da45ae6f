"""Group commit: what many callers append while the last write is under way goes with the next, under one `fsync`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import weakref
from itertools import count
from typing import NamedTuple

from ducto.journal.folder import BooksFolder
from ducto.journal.records import header_line, record_line, strike_line
from ducto.journal.segment import Segment, sync_folder

__all__ = ["JournalUnavailableError", "JournalWriter"]

logger: logging.Logger = logging.getLogger("ducto.journal")

#: Strikes need not last, since a replay changes nothing: they wait this long for a record to travel with.
STRIKE_WAIT_SECONDS = 0.2
#: A segment with nothing outstanding is emptied when it is larger than this, or when nothing is to be written.
EMPTY_BYTES = 256 * 1024
#: A segment is replaced by a new one with what is outstanding when it is larger than this and than four times that.
REPLACE_BYTES = 1024 * 1024
REPLACE_RATIO = 4
#: From this part of its bound on the journal is nearly full, until it is down to the second part.
NEARLY_FULL = 0.8
NO_MORE = 0.5
#: How long `close` waits for the disk.
CLOSE_SECONDS = 5.0

_writers: weakref.WeakSet[JournalWriter] = weakref.WeakSet()


class JournalUnavailableError(Exception):
    """The entry is not in the journal: it is full, or the disk refused. Not of the public tree: nobody raises it on."""


class _Put(NamedTuple):
    number: int
    line: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class JournalWriter:
    """Writes one segment of `folder`, made at the first append, from a thread of its own.

    `append` and `strike` are for one event loop at a time. At most `max_bytes` of records are outstanding.
    """

    def __init__(self, folder: BooksFolder, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._numbers = count(1)
        #: Outstanding records: their numbers, and the bytes of their lines.
        self._outstanding: dict[int, int] = {}
        self._outstanding_bytes = 0
        self._nearly_full = False
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._puts: list[_Put] = []
        self._strikes: list[int] = []
        self._stopping = False
        # From here on the thread's alone.
        self._segment: Segment | None = None
        self._header_bytes = 0
        self._on_disk: dict[int, bytes] = {}
        self._live_bytes = 0

    @property
    def outstanding(self) -> int:
        """How many records have not been struck out."""
        return len(self._outstanding)

    @property
    def outstanding_bytes(self) -> int:
        """How large they are."""
        return self._outstanding_bytes

    def became_nearly_full(self) -> bool:
        """True once each time that four fifths of the bound are used; again after it was down to the half."""
        used = self._outstanding_bytes / self._max_bytes
        if not self._nearly_full and used >= NEARLY_FULL:
            self._nearly_full = True
            return True
        if used <= NO_MORE:
            self._nearly_full = False
        return False

    async def append(self, entry: bytes) -> int:
        """Write an entry (a JSON object in ASCII, on one line) and wait for the disk; its number, to strike it out by.

        Raises `JournalUnavailableError`. A caller who is cancelled does not know whether it is there; if it is, it is
        replayed by the next process.
        """
        number = next(self._numbers)
        line = record_line(number, time.time_ns() // 1_000_000, entry)
        if self._outstanding_bytes + len(line) > self._max_bytes:
            raise JournalUnavailableError(
                f"it is full: {len(self._outstanding)} records of {self._outstanding_bytes} bytes are outstanding"
            )
        self._outstanding[number] = len(line)
        self._outstanding_bytes += len(line)
        loop = asyncio.get_running_loop()
        put = _Put(number, line, loop, loop.create_future())
        with self._condition:
            self._puts.append(put)
            if self._thread is None:
                self._start()
            elif len(self._puts) == 1:
                self._condition.notify()
        try:
            await put.done
        except OSError as error:
            self._remove(number)
            raise JournalUnavailableError(f"the disk refused it ({error.strerror or error})") from error
        return number

    def strike(self, number: int) -> None:
        """The store has answered for this record. Harmless when repeated."""
        if number in self._outstanding:
            with self._condition:
                # Before it is taken off, for the thread waits without end where nothing is left to come.
                self._strikes.append(number)
            self._remove(number)

    def close(self) -> None:
        """Write what is queued, and give the segment back: removed if nothing is outstanding, else to be replayed.

        Waits for the disk, so not to be called on an event loop.
        """
        with self._condition:
            thread, self._stopping = self._thread, True
            self._condition.notify()
        if thread is not None:
            thread.join(CLOSE_SECONDS)
        with self._condition:
            self._thread, self._stopping = None, False

    def _remove(self, number: int) -> None:
        self._outstanding_bytes -= self._outstanding.pop(number)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="ducto journal", daemon=True)
        self._thread.start()

    # What follows runs in the thread.

    def _run(self) -> None:
        stopping = False
        while not stopping:
            with self._condition:
                while not self._puts and not self._stopping:
                    # With nothing outstanding no strike can come before the next record.
                    waited = self._condition.wait(STRIKE_WAIT_SECONDS if self._outstanding or self._strikes else None)
                    if not waited and self._strikes:
                        break
                puts, self._puts = self._puts, []
                strikes, self._strikes = self._strikes, []
                stopping = self._stopping
            try:
                self._commit(puts, strikes)
            except OSError as error:
                _tell(puts, error)
            except BaseException as error:
                _tell(puts, OSError(f"the journal's thread failed: {type(error).__name__}"))
                logger.exception("The thread of the journal failed.")
            else:
                _tell(puts, None)
        self._finish()

    def _finish(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close(remove=not self._on_disk)
        self._on_disk.clear()
        self._live_bytes = 0

    def _commit(self, puts: list[_Put], strikes: list[int]) -> None:
        for number in strikes:
            self._live_bytes -= len(self._on_disk.pop(number, b""))
        segment = self._segment
        if segment is not None and segment.trusted:
            self._empty_if_done(segment, writing=bool(puts))
            if not puts and segment.size == self._header_bytes:
                return
            too_large = segment.size > max(REPLACE_BYTES, REPLACE_RATIO * self._live_bytes)
            segment = self._replaced() if too_large else segment
        elif puts or self._on_disk:
            segment = self._replaced()
        if segment is None:
            return
        lines = [put.line for put in puts]
        if strikes:
            lines.append(strike_line(strikes))
        if lines:
            segment.append(b"".join(lines), sync=bool(puts))
        for put in puts:
            self._on_disk[put.number] = put.line
            self._live_bytes += len(put.line)

    def _empty_if_done(self, segment: Segment, *, writing: bool) -> None:
        if not self._on_disk and segment.size > (EMPTY_BYTES if writing else self._header_bytes):
            segment.cut(self._header_bytes)

    def _replaced(self) -> Segment:
        """A new segment with all that is outstanding, which then takes the place of the one before.

        A process that dies in between leaves both; what is in both is replayed under one key. Raises `OSError`, with
        the segment before as it was.
        """
        made = self._folder.new_segment()
        header = header_line(books=self._folder.books, pid=os.getpid(), at_milliseconds=time.time_ns() // 1_000_000)
        try:
            made.append(header + b"".join(self._on_disk.values()), sync=True)
            sync_folder(self._folder.path)
        except OSError:
            made.close(remove=True)
            raise
        before, self._segment = self._segment, made
        self._header_bytes = len(header)
        if before is not None:
            before.close(remove=True)
        return made

    def _after_fork(self) -> None:
        """In a child everything is the parent's: its file, its thread, and what it owes."""
        self._outstanding.clear()
        self._outstanding_bytes = 0
        self._nearly_full = False
        self._begin()


def _tell(puts: list[_Put], error: OSError | None) -> None:
    """Wake the callers, each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for put in puts:
        by_loop.setdefault(put.loop, []).append(put.done)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake, waiting, error)
        except RuntimeError:  # The loop is closed, and so nobody waits.
            logger.debug("A loop ended while %d records were written for it.", len(waiting))


def _wake(waiting: list[asyncio.Future[None]], error: OSError | None) -> None:
    for one in waiting:
        if one.done():
            continue
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)


def _forget_all() -> None:
    for writer in list(_writers):
        writer._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_all)
