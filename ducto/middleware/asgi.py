"""`MeteringMiddleware`: every call of a model route is reserved before and charged after, whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from ducto.errors import AlreadySettledError, ConfigError, DuctoError
from ducto.manager import CreditManager
from ducto.meter import MissingUsage
from ducto.middleware.admitting import AdmittedCall, admit, read_request
from ducto.middleware.answers import AnswerCache, InProcess, InProcessAnswers
from ducto.middleware.body import ClientGoneError, read_body
from ducto.middleware.clamp import ClampToAfford
from ducto.middleware.error_bodies import NOBODY, Refusal, RefusedRequestError, refusal_for, send_refusal
from ducto.middleware.exchange import Exchange
from ducto.middleware.headers import Headers, without_headers
from ducto.middleware.idempotency import kept_answer, read_key, receipt_of, send_again, settled_refusal
from ducto.middleware.identity import Identify, identified
from ducto.middleware.options import MeteringOptions
from ducto.middleware.providers import DEFAULT_ROUTES, Provider, Tokenizer
from ducto.middleware.routes import FREE_PATHS, ModelLike, RouteTable, Unmetered
from ducto.middleware.watchdog import Watchdog
from ducto.middleware.websocket import MeterWebSocket, meter_websocket

__all__ = ["MeteringMiddleware"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: Ways to send a body that go around `http.response.body`, where the usage is read.
_BYPASSING_EXTENSIONS = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
#: An encoded answer could not be read; a changed body has another length, and is sent whole.
_NOT_PASSED_ON = frozenset({b"accept-encoding", b"content-length", b"transfer-encoding"})

_TIMED_OUT = Refusal(
    status=504, code="upstream_timeout", message="The model did not answer in time; you were not charged."
)
_BROKE_OFF = Refusal(
    status=502, code="upstream_broke_off", message="The model's answer broke off; you were not charged."
)
_UNMETERED = Refusal(
    status=404, code="unmetered_route", message="This path looks like a model's, but is not offered here."
)


class MeteringMiddleware:
    """Pure ASGI middleware that meters the model routes of the app behind it.

    A request to one of `routes` is identified, read whole (bounded), reserved for at its worst case, and passed on;
    its answer is passed on as it comes, read on the way, and charged by the usage in it. Streams are never held up;
    a plain JSON answer is passed on when its charge is known, which its headers then tell. A request that is refused
    gets an error body in its own dialect before anything else was sent. All other requests pass untouched.
    """

    def __init__(
        self,
        app: ASGIApp,
        manager: CreditManager,
        *,
        identify: Identify,
        routes: Mapping[str, Provider] = DEFAULT_ROUTES,
        free_paths: Collection[str] = FREE_PATHS,
        unmetered: Unmetered = "refuse",
        max_body_bytes: int = 10_000_000,
        max_answer_bytes: int = 10_000_000,
        default_output_tokens: int = 16_384,
        tokenizer: Tokenizer | None = None,
        clamp: ClampToAfford | None = None,
        answers: AnswerCache | InProcess | None = "in process",
        missing_usage: MissingUsage | None = None,
        include_usage: bool = True,
        drain_seconds: float = 5.0,
        first_byte_seconds: float | None = 600.0,
        idle_seconds: float | None = 300.0,
        feature: str | None = None,
        operation_type: str | None = None,
        websocket: MeterWebSocket | None = None,
    ) -> None:
        """Meter `app` with `manager`.

        * `identify` tells from the authenticated scope who calls; nothing in headers or body is believed otherwise.
        * `routes` maps exact paths to their wire formats; other spellings of them are metered too. What else looks
          like a model route (by POST or WebSocket) is refused or logged, by `unmetered`, except `free_paths`.
        * `max_body_bytes` limits a request (413); `max_answer_bytes` what is kept of an answer to read it or to
          answer it again.
        * Output is reserved by the request's limit, else by the model's `max_output_tokens`, else by
          `default_output_tokens`; input by its bytes, or by `tokenizer`, which must not do network I/O.
        * `clamp` lowers the output limit to what the caller can pay instead of refusing.
        * `answers` keeps finished answers for requests with an `Idempotency-Key`: in this process, in a cache that
          several share, or with `None` nowhere.
        * `missing_usage` (default: the manager's) says what a finished answer without usage is charged.
        * `include_usage` asks OpenAI-compatible servers for the usage of a stream, and hides the event that brings it
          from clients that did not ask.
        * When a client leaves within an answer, up to `drain_seconds` are waited for its end, to charge what it says.
        * An app that does not begin to answer within `first_byte_seconds`, or is silent for `idle_seconds`, is
          cancelled: before the answer with 504 and without a charge, within it with an estimated charge.
        * `feature` is required of the caller's plan; `operation_type` (default: the format's name) is noted on the
          reservation.
        * `websocket` meters connections to what looks like a model route; without it they are refused, also with
          `unmetered="log"`, because nobody reads what goes over them. See `MeteredSocket`.

        Raises `ConfigError` for options out of range.
        """
        self.app = app
        #: The manager whose store keeps the books.
        self.manager = manager
        #: The paths that are metered, and their wire formats.
        self.metered_routes = routes
        self._websocket = websocket
        self._routes = RouteTable(routes, free_paths=free_paths)
        if isinstance(answers, str):
            if answers != "in process":
                raise ConfigError("answers must be an AnswerCache, 'in process', or None to keep no answers.")
            answers = InProcessAnswers()
        self._options = MeteringOptions(
            identify=identify,
            unmetered=unmetered,
            max_body_bytes=max_body_bytes,
            max_answer_bytes=max_answer_bytes,
            default_output_tokens=default_output_tokens,
            tokenizer=tokenizer,
            clamp=clamp,
            answers=answers,
            missing_usage=missing_usage,
            include_usage=include_usage,
            drain_seconds=drain_seconds,
            first_byte_seconds=first_byte_seconds,
            idle_seconds=idle_seconds,
            feature=feature,
            operation_type=operation_type,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = self._routes.find(scope)
            if isinstance(found, Provider):
                await self._meter(found, scope, receive, send)
                return
            if found is not None and self._refuses(found):
                await send_refusal(send, _UNMETERED, dialect=found.dialect)
                return
        elif scope["type"] == "websocket":
            suspected = self._routes.suspicion(scope)
            if suspected is not None:
                await meter_websocket(
                    self.app,
                    scope,
                    receive,
                    send,
                    manager=self.manager,
                    identify=self._options.identify,
                    callback=self._websocket,
                    dialect=suspected.dialect,
                )
                return
        await self.app(scope, receive, send)

    def _refuses(self, found: ModelLike) -> bool:
        logger.warning("A request to %r looks like one to a model and is not metered.", found.path[:200])
        return self._options.unmetered == "refuse"

    async def _meter(self, provider: Provider, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            admitted = await self._admit(provider, scope, receive, send)
        except ClientGoneError:
            return
        except RefusedRequestError as refused:
            await send_refusal(send, refused.refusal, dialect=provider.dialect)
            return
        except DuctoError as error:
            refusal = refusal_for(error)
            if refusal.status >= 500:
                logger.exception("A call of %s is refused.", provider.name)
            await send_refusal(send, refusal, dialect=provider.dialect)
            return
        if admitted is not None:
            await self._run(admitted, scope, receive, send)

    async def _admit(self, provider: Provider, scope: Scope, receive: Receive, send: Send) -> AdmittedCall | None:
        """The admitted call; `None` if the request has been answered with what was answered before."""
        options = self._options
        identity = await identified(options.identify, scope)
        if identity is None:
            raise RefusedRequestError(NOBODY)
        key = read_key(scope["headers"])
        body = await read_body(scope, receive, max_bytes=options.max_body_bytes)
        request = await read_request(body, provider=provider, manager=self.manager, options=options)
        try:
            return await admit(request, identity, key=key, manager=self.manager, options=options)
        except AlreadySettledError as settled:
            receipt = await receipt_of(self.manager, settled)
            answer = await kept_answer(options.answers, identity, key, settled)
            if answer is None:
                raise RefusedRequestError(settled_refusal(settled, receipt)) from None
            await send_again(send, answer, settled, receipt=receipt)
            return None

    async def _run(self, admitted: AdmittedCall, scope: Scope, receive: Receive, send: Send) -> None:
        options = self._options
        watchdog = Watchdog(first_byte_seconds=options.first_byte_seconds, idle_seconds=options.idle_seconds)
        exchange = Exchange(
            admitted, manager=self.manager, options=options, receive=receive, send=send, watchdog=watchdog
        )
        try:
            await self.app(_passed_on(scope, admitted), exchange.receive, exchange.send)
            # The app may have caught our cancellation, which must not hit whoever is outside.
            watchdog.accept_cancellation()
        except asyncio.CancelledError:
            if not watchdog.accept_cancellation():
                raise
            logger.warning(
                "The app behind did not answer in time; reservation %s is ended.",
                admitted.metered.admission.reservation_id,
            )
        finally:
            watchdog.stop()
            await exchange.finish()
        if exchange.can_refuse and (watchdog.expired or exchange.started):
            refusal = _TIMED_OUT if watchdog.expired else _BROKE_OFF
            await send_refusal(send, refusal, dialect=admitted.request.provider.dialect)


def _passed_on(scope: Scope, admitted: AdmittedCall) -> Scope:
    """The scope of the request as the app behind gets it."""
    body = admitted.request.body if admitted.new_body is None else admitted.new_body
    headers: Headers = without_headers(scope["headers"], _NOT_PASSED_ON)
    headers.append((b"content-length", str(len(body)).encode()))
    passed = {**scope, "headers": headers}
    extensions = scope.get("extensions")
    if extensions:
        passed["extensions"] = {name: one for name, one in extensions.items() if name not in _BYPASSING_EXTENSIONS}
    return passed
