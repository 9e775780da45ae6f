"""`RequireCredits`: reserves before a path operation of FastAPI, and settles after its response."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

from fastapi import Depends, params
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from ducto.errors import ConfigError, DuctoError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware.error_bodies import NOBODY, refusal_for
from ducto.middleware.fastapi.refusals import refused
from ducto.middleware.identity import Identity
from ducto.usage import UsageMetrics

__all__ = ["Dependency", "RequireCredits"]

logger: logging.Logger = logging.getLogger("ducto.middleware.fastapi")

#: `Depends(function)`, or just `function`: FastAPI calls it, with whatever it depends on itself.
Dependency = params.Depends | Callable[..., Any]

#: Where FastAPI keeps what ends when the path operation has returned, before its response is sent.
_FUNCTION_STACK = "fastapi_function_astack"


class RequireCredits:
    """A dependency whose value is a started `MeteredCall`:

        credits = RequireCredits(manager, user=current_user, model="gpt-4o", max_tokens=500)

        @app.post("/summaries", responses=REFUSAL_RESPONSES)
        async def summarise(text: Text, call: Annotated[MeteredCall, Depends(credits)]) -> Summary:
            ...
            call.record(usage)

    The worst case is reserved before the path operation runs; a refusal is answered for it, as `REFUSAL_RESPONSES`
    document. When the response has been sent, a stream to its end, the call is charged for what was recorded. If
    nothing was recorded: the hold is released where the path operation raised, or its request was cancelled; the
    call is charged by the manager's missing-usage policy where it returned, whatever became of its response. A client
    who leaves changes nothing about that, and a charge that has begun completes.

    The path operation may be `async def` or `def`, and a WebSocket's: its refusals close the socket with 1008.
    """

    def __init__(
        self,
        manager: CreditManager,
        *,
        user: Dependency,
        amount: int | None = None,
        estimate: Dependency | UsageMetrics | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
        idempotency_key: Dependency | None = None,
        operation_type: str | None = None,
        feature: str | None = None,
    ) -> None:
        """Reserve with `manager` for the user that the dependency `user` returns.

        * `user` returns a user id or an `Identity`, from your own authentication; `None` is answered with 401.
        * The worst case is one of: `amount` in credits; `estimate`, a `UsageMetrics`, or a dependency that returns
          usage or credits (it may take the request's body as the path operation does); `max_tokens` of output of
          `model`, with a token of input for each byte of the request's body. What else goes into a prompt is not in
          the last one: use `estimate`, or add to `max_tokens`.
        * `model` prices what is recorded without a model.
        * `idempotency_key` returns the key of the call, or `None`: one that was charged is refused with 409.
        * `operation_type` (default: the path of the route) and `feature` are those of `CreditManager.meter`.

        Raises `ConfigError` where not exactly one worst case is given.
        """
        given = [value is not None for value in (amount, estimate, max_tokens)]
        if sum(given) != 1:
            raise ConfigError("Say what a call may cost at most: give one of amount=, estimate= and max_tokens=.")
        if max_tokens is not None and (model is None or type(max_tokens) is not int or max_tokens < 1):
            raise ConfigError("max_tokens must be a whole number of at least 1, and needs model=.")
        if amount is not None and (type(amount) is not int or amount < 0):
            raise ConfigError(f"amount must be a whole number of credits, not {amount!r}.")
        #: The manager whose store keeps the books.
        self.manager = manager
        self._amount = amount if estimate is None else estimate if isinstance(estimate, UsageMetrics) else None
        self._model = model
        self._max_tokens = max_tokens
        self._operation_type = operation_type
        self._feature = feature
        wanted = {
            "user": user,
            "estimate": None if isinstance(estimate, UsageMetrics) else estimate,
            "idempotency_key": idempotency_key,
        }
        #: What FastAPI reads to know what to call before, see `inspect.signature`.
        self.__signature__: inspect.Signature = _signature(
            {name: one for name, one in wanted.items() if one is not None}
        )

    async def __call__(
        self,
        connection: HTTPConnection,
        user: Identity | str | None = None,
        estimate: UsageMetrics | int | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncIterator[MeteredCall]:
        """Called by FastAPI. Raises `HTTPException` for a refusal, `WebSocketException` for a WebSocket's."""
        call = await self._started(connection, user, estimate, idempotency_key)
        returned = _Returned()
        stack = connection.scope.get(_FUNCTION_STACK)
        if isinstance(stack, AsyncExitStack):
            stack.push(returned)
        try:
            yield call
        except BaseException as error:
            if returned.normally or isinstance(error, ClientDisconnect):
                call.note_delivery()
            await _finish(call, error)
            raise
        await _finish(call, None)

    async def _started(
        self,
        connection: HTTPConnection,
        user: Identity | str | None,
        estimate: UsageMetrics | int | None,
        idempotency_key: str | None,
    ) -> MeteredCall:
        if user is None:
            raise refused(NOBODY, connection)
        if not isinstance(user, str | Identity):
            raise ConfigError(
                f"The dependency `user` must return a user id or a ducto Identity, not {type(user).__name__}; "
                "wrap it in one that returns the id."
            )
        identity = Identity(user) if isinstance(user, str) else user
        try:
            call = self.manager.meter(
                identity.user_id,
                team_id=identity.team_id,
                estimate=await self._worst_case(connection, estimate),
                model=self._model,
                idempotency_key=idempotency_key,
                operation_type=self._operation_type or _name_of(connection),
                feature=self._feature,
            )
            await call.start()
        except ConfigError:
            raise
        except DuctoError as error:
            refusal = refusal_for(error)
            if refusal.status >= 500:
                logger.exception("A call of %r is refused.", connection.scope["path"][:200])
            raise refused(refusal, connection) from error
        return call

    async def _worst_case(self, connection: HTTPConnection, estimate: UsageMetrics | int | None) -> UsageMetrics | int:
        if self._amount is not None:
            return self._amount
        if self._max_tokens is None:
            if estimate is None:
                raise ConfigError("The dependency `estimate` returned None; it must return usage or credits.")
            return estimate
        body = 0
        if isinstance(connection, Request):
            try:
                body = len(await connection.body())
            except RuntimeError:  # so says Starlette when the body was read as a form or a stream
                raise ConfigError(
                    "The size of a form or a streamed body is not known; give RequireCredits an estimate= instead."
                ) from None
        return UsageMetrics(model=self._model, input_tokens=body, output_tokens=self._max_tokens)


class _Returned:
    """On the stack of the path operation: learns whether it returned or raised."""

    def __init__(self) -> None:
        self.normally = False

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.normally = exc is None


async def _finish(call: MeteredCall, failure: BaseException | None) -> None:
    """End the call. What fails is logged: the response has been given, and is not taken away."""
    try:
        await call.finish(failure)
    except DuctoError as error:
        logger.warning("Reservation %s could not be ended: %s", call.admission.reservation_id, error)


def _signature(dependencies: dict[str, Dependency]) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    found = [inspect.Parameter("connection", kind, annotation=HTTPConnection)]
    for name, one in dependencies.items():
        depends = one if isinstance(one, params.Depends) else Depends(one)
        found.append(inspect.Parameter(name, kind, default=depends, annotation=Any))
    return inspect.Signature(found)


def _name_of(connection: HTTPConnection) -> str:
    """The path of the route as it was declared, so that all calls of it have one name."""
    path = getattr(connection.scope.get("route"), "path", None)
    return path if isinstance(path, str) and path.strip() == path and path else "call"
