"""One metered exchange: passes the answer on as it comes, reads what it says about usage, and closes the books."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Send

from ducto.manager import CreditManager
from ducto.middleware.admitting import AdmittedCall
from ducto.middleware.answer_reading import AnswerReading, PlainReading, StreamReading, UnreadReading, reading_for
from ducto.middleware.answers import KeptAnswer
from ducto.middleware.billing import AnswerFacts, Bill, bill_for
from ducto.middleware.closing import close_books
from ducto.middleware.headers import (
    BALANCE,
    CLAMPED,
    COST,
    HELD,
    RESERVATION,
    Headers,
    header_values,
    without_headers,
    without_own,
)
from ducto.middleware.idempotency import answer_key, keep
from ducto.middleware.identity import Identity
from ducto.middleware.options import MeteringOptions
from ducto.middleware.watchdog import Watchdog
from ducto.models import DeductionResult
from ducto.supervisor import outcome
from ducto.usage import UsageMetrics

__all__ = ["Exchange"]

#: Headers of an answer that are not kept with it.
_PER_CONNECTION = frozenset({b"connection", b"date", b"keep-alive", b"server", b"transfer-encoding"})


class Exchange:
    """The `receive` and `send` of one call to the app behind. Not shared between requests."""

    __slots__ = (
        "_admitted",
        "_body",
        "_closing",
        "_complete",
        "_copy",
        "_held_start",
        "_keep_under",
        "_left_at",
        "_loop",
        "_manager",
        "_on_body",
        "_options",
        "_over",
        "_reading",
        "_receive",
        "_send",
        "_send_error",
        "_sent_headers",
        "_status",
        "_watchdog",
        "started",
    )

    def __init__(
        self,
        admitted: AdmittedCall,
        *,
        manager: CreditManager,
        options: MeteringOptions,
        receive: Receive,
        send: Send,
        watchdog: Watchdog,
    ) -> None:
        self._admitted = admitted
        self._manager = manager
        self._options = options
        self._receive = receive
        self._send = send
        self._watchdog = watchdog
        self._loop = asyncio.get_running_loop()
        request = admitted.request
        self._body: bytes | None = request.body if admitted.new_body is None else admitted.new_body
        terms = admitted.metered.terms
        self._keep_under: str | None = None
        #: What the client gets, while it may still be kept.
        self._copy: bytearray | None = None
        if terms.idempotency_key is not None and options.answers is not None:
            identity = Identity(terms.user_id, terms.team_id)
            self._keep_under = answer_key(identity, terms.idempotency_key, admitted.metered.admission.reservation_id)
            self._copy = bytearray()
        self._reading: AnswerReading = UnreadReading()
        #: A function and no bound method, which would make a circle that keeps all this until the garbage collector
        #: comes by.
        self._on_body: Callable[[Exchange, Message], Awaitable[None]] = Exchange._forward
        self._held_start: Message | None = None
        self._status = 0
        self._sent_headers: Headers = []
        self._complete = False
        self._closing = False
        self._left_at: float | None = None
        self._send_error: OSError | None = None
        #: Nothing more is to be had of the app behind: there is no need to drain it.
        self._over = asyncio.Event()
        #: The app behind has begun to answer, with whatever status.
        self.started: bool = False

    @property
    def can_refuse(self) -> bool:
        """Nothing has been sent to a client who is still there, so that another answer may be given."""
        return self._left_at is None and (not self.started or self._held_start is not None)

    # The two callables that the app behind gets

    async def receive(self) -> Message:
        """The request's body, then what becomes of the client.

        That the client left is told at once before an answer has begun, and after it up to `drain_seconds` later, so
        that a stream can come to its end and say what it used.
        """
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left()
            if self.started:
                await self._drained()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            await self._on_body(self, message)
        elif kind == "http.response.start":
            await self._begin(message)
        else:
            await self._forward(message)

    # What is done with the answer

    async def _begin(self, message: Message) -> None:
        self.started = True
        self._watchdog.begin()
        status = self._status = message["status"]
        headers = without_own(message.get("headers", ()))
        own: Headers = [(RESERVATION, self._admitted.metered.admission.reservation_id.encode())]
        if not 200 <= status < 300:
            # An error is final for this call, so the client may repeat it as soon as he sees it.
            await self._close()
            self._over.set()
            self._on_body = Exchange._forward
            await self._forward({**message, "headers": [*headers, *own, (COST, b"0")]})
            return
        own.append((HELD, str(self._admitted.metered.reservation.held).encode()))
        if self._admitted.clamped_tokens is not None:
            own.append((CLAMPED, str(self._admitted.clamped_tokens).encode()))
        encodings = header_values(headers, b"content-encoding")
        if not encodings or all(value.lower() == b"identity" for value in encodings):
            request = self._admitted.request
            self._reading = reading_for(headers, request, max_bytes=self._options.max_answer_bytes)
        if isinstance(self._reading, StreamReading):
            if self._admitted.hide_usage:
                headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
            self._on_body = Exchange._pass_stream
        elif isinstance(self._reading, PlainReading):
            self._on_body = Exchange._hold_plain
        else:
            self._on_body = Exchange._pass_unread
        self._sent_headers = headers
        message = {**message, "headers": [*headers, *own]}
        if isinstance(self._reading, PlainReading):
            # What such a call cost is told in its headers, so they wait for the body, which is short and read whole.
            self._held_start = message
        else:
            await self._forward(message)

    async def _pass_stream(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        self._watchdog.note()
        reading = self._reading
        assert isinstance(reading, StreamReading)
        shown = reading.feed_visible(body) if self._admitted.hide_usage else reading.feed(body)
        if message.get("more_body", False):
            if shown:
                await self._pass(message if shown is body else {**message, "body": shown})
            return
        last = reading.end()
        self._complete = True
        await self._end_with(shown + last if self._admitted.hide_usage else shown)

    async def _pass_unread(self, message: Message) -> None:
        self._watchdog.note()
        self._reading.body_bytes += len(message.get("body", b""))
        if message.get("more_body", False):
            await self._pass(message)
            return
        self._complete = True
        await self._end_with(message.get("body", b""))

    async def _hold_plain(self, message: Message) -> None:
        self._watchdog.note()
        reading = self._reading
        assert isinstance(reading, PlainReading)
        reading.feed(message.get("body", b""))
        if reading.too_large:
            await self._let_go(more=message.get("more_body", False))
        elif not message.get("more_body", False):
            self._complete = True
            self._copied(reading.body)
            result = await self._close()
            await self._let_go(more=False, result=result)

    async def _let_go(self, *, more: bool, result: DeductionResult | None = None) -> None:
        """Pass on what was held of a plain answer, with the cost where it is known."""
        reading, start = self._reading, self._held_start
        assert isinstance(reading, PlainReading)
        assert start is not None
        self._held_start = None
        if result is not None:
            charged = result.actual - result.unbilled
            told = [(COST, str(charged).encode()), (BALANCE, str(result.balance_after).encode())]
            start = {**start, "headers": [*start["headers"], *told]}
        await self._forward(start)
        body = reading.take()
        self._on_body = Exchange._pass_unread
        if self._closing:
            await self._forward({"type": "http.response.body", "body": body, "more_body": False})
            self._over.set()
        elif more:
            await self._pass({"type": "http.response.body", "body": body, "more_body": True})
        else:
            self._complete = True
            await self._end_with(body)

    async def _end_with(self, body: bytes) -> None:
        """The last bytes are sent at once; that they were the last, when the books are closed.

        Whoever has read to the end then finds the charge in them, and may repeat his key.
        """
        if body:
            await self._pass({"type": "http.response.body", "body": body, "more_body": True})
        await self._close()
        await self._forward({"type": "http.response.body", "body": b"", "more_body": False})
        self._over.set()

    async def _pass(self, message: Message) -> None:
        if self._copy is not None:
            self._copied(message["body"])
        await self._forward(message)
        error, left_at = self._send_error, self._left_at
        if error is None or left_at is None:
            return
        # Where `send` tells that the client left, `send` is also where the app behind is stopped.
        if self._loop.time() >= left_at + self._options.drain_seconds:
            raise error

    async def _forward(self, message: Message) -> None:
        if self._left_at is not None:
            return
        try:
            await self._send(message)
        except OSError as error:
            # Some servers tell so that the client has left. The app behind learns it when the draining ends.
            self._send_error = error
            self._left()

    def _copied(self, body: bytes) -> None:
        if self._copy is not None:
            self._copy += body
            if len(self._copy) > self._options.max_answer_bytes:
                self._copy = None

    # The client's leaving, and the end

    def _left(self) -> None:
        if self._left_at is None:
            self._left_at = self._loop.time()

    async def _drained(self) -> None:
        assert self._left_at is not None
        left = self._left_at + self._options.drain_seconds - self._loop.time()
        if left > 0:
            try:
                async with asyncio.timeout(left):
                    await self._over.wait()
            except TimeoutError:
                return

    async def finish(self) -> None:
        """The app behind has ended, in whatever way: pass on what is left of a stream, and close the books.

        It does not raise, so that the app's own exception goes on its way.
        """
        if self._closing:
            return
        reading = self._reading
        if isinstance(reading, StreamReading):
            rest = reading.end()
            await self._close()
            if rest and self._admitted.hide_usage:
                await self._forward({"type": "http.response.body", "body": rest, "more_body": True})
            return
        await self._close()

    async def _close(self) -> DeductionResult | None:
        """Charge or release, once; the result if it was charged in time. Never raises."""
        if self._closing:
            return None
        self._closing = True
        self._watchdog.stop()
        bill = Bill()
        if 200 <= self._status < 300:
            missing_usage = self._options.missing_usage or self._manager.missing_usage
            bill = bill_for(self._facts(), self._admitted.request, missing_usage=missing_usage)
        return await close_books(self._admitted.metered, bill, settle=self._keep_and_settle)

    async def _keep_and_settle(self, actual: UsageMetrics | int | None, estimated: bool) -> DeductionResult:
        """Keep the answer, then charge: in this order, so that whoever finds the call charged finds its answer too.

        Both are one supervised task, which a cancelled request does not tear apart.
        """
        answers, key, copy = self._options.answers, self._keep_under, self._copy
        metered = self._admitted.metered
        if answers is None or key is None or copy is None or self._reading.failed or not self._is_complete:
            return await metered.settle(actual, estimated=estimated)
        headers = without_headers(self._sent_headers, _PER_CONNECTION)
        answer = KeptAnswer(self._status, tuple(headers), bytes(copy))

        async def close_books() -> DeductionResult:
            await keep(answers, key, answer)
            return await metered.settle(actual, estimated=estimated)

        return await outcome(self._manager.supervise(close_books))

    @property
    def _is_complete(self) -> bool:
        return self._complete or self._reading.finished

    def _facts(self) -> AnswerFacts:
        reading = self._reading
        held = self._held_start is not None
        return AnswerFacts(
            # A plain answer that broke off was never seen by the client, whatever its figures say.
            reading=reading.result(self._admitted.request) if self._complete or not held else None,
            complete=self._is_complete,
            failed=reading.failed,
            abandoned=self._left_at is not None or (self._watchdog.expired and not held),
            body_bytes=reading.body_bytes,
            passed_on=not held and reading.body_bytes > 0,
        )
