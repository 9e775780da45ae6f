"""WebSockets to model routes: refused, unless a callback meters them.

Nothing but the app's own protocol says what went over a WebSocket, so the figures come from a callback. That work is
paid for at all is seen to here: an app that answers a client's message without a call having been opened is cut off.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto.errors import ConfigError, DuctoError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware.error_bodies import NOBODY, Refusal, error_body, refusal_for, refusal_headers
from ducto.middleware.identity import Identify, Identity, identified
from ducto.middleware.providers import Dialect
from ducto.models import Metadata
from ducto.usage import UsageMetrics

__all__ = ["MeterWebSocket", "MeteredSocket", "WebSocketData", "WebSocketHook", "meter_websocket"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: RFC 6455, section 7.4.1: the message violates the endpoint's policy. 1013, of IANA's registry: try again later.
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
_DENIAL = "websocket.http.response"

_NOT_METERED = Refusal(
    status=403,
    code="websocket_not_metered",
    message="A WebSocket to a model is not metered here, so it is not offered; use the HTTP route.",
)

#: What a message carries.
WebSocketData = str | bytes
#: Looks at a message before it is passed on; a `DuctoError` out of it closes the connection.
WebSocketHook = Callable[[WebSocketData], Awaitable[None] | None]


class MeteredSocket:
    """One WebSocket connection to a model route, in the hands of the callback that meters it.

    The callback opens calls with `open`, and passes the connection on to the app behind with `run`. What it opened
    and did not end is ended after it: charged for what was recorded, else by the missing-usage policy; freed only
    where it raised before the app had sent anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        manager: CreditManager,
        identity: Identity,
        dialect: Dialect,
    ) -> None:
        #: The connection's ASGI scope.
        self.scope = scope
        #: Who calls, and pays.
        self.identity = identity
        self._app = app
        self._receive = receive
        self._send = send
        self._manager = manager
        self._dialect = dialect
        self._calls: list[MeteredCall] = []
        self._on_receive: WebSocketHook | None = None
        self._on_send: WebSocketHook | None = None
        self._connected = False
        self._client_spoke = False
        self._accepted = False
        self._over = False

    async def open(
        self,
        *,
        estimate: UsageMetrics | int,
        model: str | None = None,
        operation_type: str = "websocket",
        idempotency_key: str | None = None,
        feature: str | None = None,
        metadata: Metadata = None,
    ) -> MeteredCall:
        """Reserve for work over this connection; `estimate` is the worst case, as usage or credits.

        One call may stand for the whole connection, or each answer may be one: `record` what it used, and `settle` it
        when it is over. Raises what `MeteredCall.start` raises; the connection is then refused, or closed.
        """
        call = self._manager.meter(
            self.identity.user_id,
            team_id=self.identity.team_id,
            estimate=estimate,
            model=model,
            operation_type=operation_type,
            idempotency_key=idempotency_key,
            feature=feature,
            metadata=metadata,
        )
        await call.start()
        self._calls.append(call)
        return call

    async def run(self, *, on_receive: WebSocketHook | None = None, on_send: WebSocketHook | None = None) -> None:
        """Pass the connection on to the app behind, until it ends.

        `on_receive` sees what the client says before the app does, `on_send` what the app says before the client
        does. A call must be open by the time that the app answers the client's first message; without one the
        connection is closed with 1008. Raises what the app raises, and `ConfigError` when it is run twice.
        """
        if self._on_receive is not None or self._over:
            raise ConfigError("A connection is passed on once.")
        self._on_receive, self._on_send = on_receive or _ignore, on_send or _ignore
        try:
            await self._app(self.scope, self._to_app, self._to_client)
        except OSError:
            if not self._over:
                raise
            # So it was told by us that the connection is closed.
        self._over = True

    async def refuse(self, refusal: Refusal) -> None:
        """End the connection with `refusal`, unless it has ended."""
        if self._over:
            return
        self._over = True
        await _refuse(
            refusal,
            self.scope,
            self._receive,
            self._send,
            dialect=self._dialect,
            connected=self._connected,
            accepted=self._accepted,
        )

    async def finish(self, failure: BaseException | None) -> None:
        """End the calls that are still open. What fails is logged: the connection is over in any case."""
        for call in self._calls:
            try:
                await call.finish(failure)
            except DuctoError as error:
                logger.warning("Reservation %s could not be ended: %s", call.admission.reservation_id, error)

    @property
    def passed_on(self) -> bool:
        """Has `run` been called?"""
        return self._on_receive is not None

    # The two callables that the app behind gets

    async def _to_app(self) -> Message:
        if self._over:
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": "not metered"}
        message = await self._receive()
        if message["type"] == "websocket.connect":
            self._connected = True
        elif message["type"] == "websocket.receive":
            self._client_spoke = True
            if not await self._hooked(self._on_receive, message):
                return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": "refused"}
        return message

    async def _to_client(self, message: Message) -> None:
        if self._over:
            raise OSError("the connection was closed")
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.send":
            if self._client_spoke and not self._calls:
                logger.error("%r answers over a WebSocket, and nothing was reserved.", self.scope["path"][:200])
                await self.refuse(_NOT_METERED)
                raise OSError("the connection was closed, because nothing was reserved for it")
            if not await self._hooked(self._on_send, message):
                raise OSError("the connection was closed, because it was refused")
            for call in self._calls:
                call.note_delivery()
        await self._send(message)

    async def _hooked(self, hook: WebSocketHook | None, message: Message) -> bool:
        """Show `message` to `hook`; false if that refused it, and the connection is closed."""
        text = message.get("text")
        data: WebSocketData = text if text is not None else message.get("bytes") or b""
        assert hook is not None
        try:
            seen = hook(data)
            if inspect.isawaitable(seen):
                await seen
        except DuctoError as error:
            await self.refuse(_told(error))
            return False
        return True


#: Meters one connection, see `MeteredSocket`.
MeterWebSocket = Callable[[MeteredSocket], Awaitable[None]]


async def meter_websocket(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    manager: CreditManager,
    identify: Identify,
    callback: MeterWebSocket | None,
    dialect: Dialect,
) -> None:
    """Let `callback` meter a connection to `app`; without one the connection is refused."""
    if callback is None:
        await _refuse(_NOT_METERED, scope, receive, send, dialect=dialect)
        return
    try:
        identity = await identified(identify, scope)
    except DuctoError as error:
        await _refuse(_told(error), scope, receive, send, dialect=dialect)
        return
    if identity is None:
        await _refuse(NOBODY, scope, receive, send, dialect=dialect)
        return
    socket = MeteredSocket(app, scope, receive, send, manager=manager, identity=identity, dialect=dialect)
    failure: BaseException | None = None
    try:
        await callback(socket)
    except DuctoError as error:
        failure = error
        await socket.refuse(_told(error))
    except BaseException as error:
        failure = error
        raise
    else:
        if not socket.passed_on:
            await socket.refuse(_NOT_METERED)
    finally:
        await socket.finish(failure)


async def _refuse(
    refusal: Refusal,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    dialect: Dialect,
    connected: bool = False,
    accepted: bool = False,
) -> None:
    """Refuse a connection with an HTTP answer where that is still possible, else close it.

    `connected` says that its first event was received, `accepted` that the app behind has accepted it.
    """
    if not connected:
        await receive()
    with suppress(OSError):  # So some servers tell that the client has left.
        if accepted or _DENIAL not in (scope.get("extensions") or {}):
            # A server that is told so before the connection is accepted answers with 403.
            code = TRY_AGAIN_LATER if refusal.status in (429, 503) else POLICY_VIOLATION
            await send({"type": "websocket.close", "code": code, "reason": refusal.code})
            return
        body = error_body(refusal, dialect)
        headers = refusal_headers(refusal, body=body)
        await send({"type": f"{_DENIAL}.start", "status": refusal.status, "headers": headers})
        await send({"type": f"{_DENIAL}.body", "body": body, "more_body": False})


def _told(error: DuctoError) -> Refusal:
    refusal = refusal_for(error)
    if refusal.status >= 500:
        logger.error("A WebSocket is refused.", exc_info=error)
    return refusal


def _ignore(data: WebSocketData) -> None:
    return None
