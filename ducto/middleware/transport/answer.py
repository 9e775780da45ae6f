"""The answer to one metered attempt: passed on as it comes, read on the way, charged or released once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware.admitting import AdmittedCall
from ducto.middleware.answer_reading import AnswerReading, PlainReading, StreamReading, UnreadReading, reading_for
from ducto.middleware.billing import AnswerFacts, Bill, bill_for
from ducto.middleware.closing import close_books
from ducto.middleware.content_decoding import ContentDecoder, UndecodableError
from ducto.middleware.headers import (
    CLAMPED,
    COST,
    HELD,
    RESERVATION,
    Headers,
    header_values,
    without_headers,
    without_own,
)
from ducto.middleware.transport.options import TransportOptions
from ducto.models import DeductionResult
from ducto.supervisor import outcome

__all__ = ["MeteredAnswer"]

logger: logging.Logger = logging.getLogger("ducto.middleware")


class MeteredAnswer:
    """One attempt from its admission to the end of its answer. Fed by one thread; its books close on the manager's
    event loop.

    An answer that never begins, or begins with an error status, is released; so is one that the provider breaks off
    before anything usable of it was there. Whoever closes it early, or is cancelled within it, is charged for what
    came until then.
    """

    def __init__(self, admitted: AdmittedCall, *, manager: CreditManager, options: TransportOptions) -> None:
        self._admitted = admitted
        self._manager = manager
        self._options = options
        self._reading: AnswerReading = UnreadReading()
        self._decoder: ContentDecoder | None = None
        self._hides_usage = False
        self._status = 0
        self._complete = False
        self._broke_off = False
        self._bill: Bill | None = None
        self._closing: asyncio.Task[DeductionResult | None] | None = None

    @property
    def admitted(self) -> AdmittedCall:
        return self._admitted

    @property
    def successful(self) -> bool:
        """The provider has begun to do what was asked."""
        return 200 <= self._status < 300

    @property
    def over(self) -> bool:
        """The provider has said all that counts, though the connection may still be open. After an error it may stay
        so: not every SDK closes it when it raises what the provider said.
        """
        return self._reading.finished or self._reading.failed

    # The answer as it comes

    def begin(self, status: int, headers: Headers) -> Headers:
        """Take the head of the answer; the headers that the caller gets."""
        self._status = status
        headers = without_own(headers)
        metered = self._admitted.metered
        own: Headers = [(RESERVATION, metered.admission.reservation_id.encode())]
        if not self.successful:
            return [*headers, *own, (COST, b"0")]
        own.append((HELD, str(metered.reservation.held).encode()))
        if self._admitted.clamped_tokens is not None:
            own.append((CLAMPED, str(self._admitted.clamped_tokens).encode()))
        reading = reading_for(headers, self._admitted.request, max_bytes=self._options.max_answer_bytes)
        codings = _codings(headers)
        if codings:
            try:
                self._decoder = ContentDecoder(codings)
            except UndecodableError as error:
                logger.warning("The answer to reservation %s cannot be read: %s.", _id(metered), error)
                reading = UnreadReading()
        elif self._admitted.hide_usage and isinstance(reading, StreamReading):
            self._hides_usage = True
            headers = without_headers(headers, frozenset({b"content-length"}))
        self._reading = reading
        return [*headers, *own]

    def feed(self, chunk: bytes) -> bytes:
        """Read `chunk`; what the caller gets of it: all, but for the event with the usage that only we asked for."""
        reading = self._reading
        if self._hides_usage and isinstance(reading, StreamReading):
            return reading.feed_visible(chunk)
        for part in self._decoded(chunk):
            self._read(part)
        return chunk

    def end(self) -> bytes:
        """The answer has come to its end; what the caller has not got yet."""
        rest = self._reading.end() if isinstance(self._reading, StreamReading) else b""
        self._complete = True
        return rest if self._hides_usage else b""

    def broke_off(self, *, silent: bool) -> None:
        """The provider failed within the answer. A stream that was only `silent` for too long counts as one that the
        caller left.
        """
        self._broke_off = not (silent and isinstance(self._reading, StreamReading))

    # The end of the books

    def close(self) -> None:
        """Begin to charge or to release, once, whatever becomes of the caller. On the manager's event loop."""
        bill = self._decided()
        if self._closing is not None:
            return
        metered = self._admitted.metered

        async def settle() -> DeductionResult | None:
            return await close_books(
                metered, bill, settle=lambda actual, estimated: metered.settle(actual, estimated=estimated)
            )

        try:
            self._closing = self._manager.supervise(settle)
        except ConfigError as error:
            logger.warning("Reservation %s stays held until it expires: %s", _id(metered), error)

    async def closed(self) -> None:
        """As `close`, and wait until it is done, or takes too long. Never raises but when cancelled."""
        self.close()
        if self._closing is not None:
            await outcome(self._closing)

    def close_soon(self) -> None:
        """As `close`, from any thread and without waiting. Does nothing where the manager's loop has ended."""
        self._decided()
        loop = self._manager.loop
        if self._closing is None and loop is not None:
            # The loop may end at this moment; the hold then ends by itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.close)

    def _decided(self) -> Bill:
        """The bill by what is known at the first call, in the thread that feeds."""
        if self._bill is None:
            if self.successful:
                missing_usage = self._options.missing_usage or self._manager.missing_usage
                self._bill = bill_for(self._facts(), self._admitted.request, missing_usage=missing_usage)
            else:
                self._bill = Bill()
        return self._bill

    def _facts(self) -> AnswerFacts:
        reading = self._reading
        complete = self._complete or reading.finished
        plain = isinstance(reading, PlainReading)
        if isinstance(reading, StreamReading) and not complete:
            reading.end()
        return AnswerFacts(
            # Of a plain answer that broke off nobody can use anything, whatever its figures say.
            reading=reading.result(self._admitted.request) if complete or not plain else None,
            complete=complete,
            failed=reading.failed,
            abandoned=not complete and not self._broke_off,
            body_bytes=reading.body_bytes,
            passed_on=not plain and reading.body_bytes > 0,
        )

    # Reading

    def _decoded(self, chunk: bytes) -> Iterator[bytes]:
        if self._decoder is None:
            yield chunk
            return
        try:
            yield from self._decoder.feed(chunk)
        except UndecodableError as error:
            logger.warning("The answer to reservation %s cannot be read: %s.", _id(self._admitted.metered), error)
            self._decoder, self._reading = None, UnreadReading()

    def _read(self, part: bytes) -> None:
        reading = self._reading
        if isinstance(reading, StreamReading):
            reading.feed(part)
        elif isinstance(reading, PlainReading):
            reading.feed(part)
            if reading.too_large:
                # Nothing of it is kept any more.
                reading.take()
        else:
            reading.body_bytes += len(part)


def _codings(headers: Headers) -> list[bytes]:
    names = b",".join(header_values(headers, b"content-encoding")).split(b",")
    return [name for each in names if (name := each.strip().lower()) not in (b"", b"identity")]


def _id(metered: MeteredCall) -> str:
    return metered.admission.reservation_id
