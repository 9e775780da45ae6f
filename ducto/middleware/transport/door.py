"""Before the call: which requests are metered, who pays for them, and what they are told who cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from ducto.context import acting_user
from ducto.errors import ConfigError, DuctoError
from ducto.manager import CreditManager
from ducto.middleware.admitting import AdmittedCall, admit, read_request
from ducto.middleware.body import check_body_headers
from ducto.middleware.error_bodies import Refusal, RefusedRequestError, error_body, refusal_for, refusal_headers
from ducto.middleware.headers import Headers
from ducto.middleware.identity import Identity
from ducto.middleware.providers import Dialect, Provider
from ducto.middleware.routes import ModelLike, RouteTable
from ducto.middleware.transport.options import TransportOptions

__all__ = ["Payer", "RefusalAnswer", "SentRequest", "TransportDoor", "answer_of"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

RequestT = TypeVar("RequestT")

#: A user or team: always the same, or told from the request.
Payer: TypeAlias = str | Callable[[RequestT], str | None]

_UNMETERED = Refusal(
    status=404,
    code="unmetered_route",
    message="This path looks like a model's, but no route meters it; add it to the transport's routes or free_paths, "
    "or let such requests pass with unmetered='log'.",
)
_NOBODY = Refusal(
    status=401,
    code="unauthenticated",
    message="Nobody is known to pay for this call; give user_id to metered_transport, "
    "or make the call inside `with ducto.acting_as(user_id):`.",
)


class SentRequest(Protocol):
    """What is looked at of a request of httpx or httpx2."""

    method: str
    url: Any
    headers: Any
    stream: Any


@dataclass(frozen=True, slots=True)
class RefusalAnswer:
    """A refusal as it comes from the wire."""

    status: int
    headers: Headers
    body: bytes


class TransportDoor:
    """What the kinds of metered transport share. Its admissions run on the manager's event loop."""

    def __init__(
        self,
        manager: CreditManager,
        *,
        user_id: Payer[Any] | None,
        team_id: Payer[Any] | None,
        options: TransportOptions,
    ) -> None:
        self.manager = manager
        self.options = options
        self._user_id = user_id
        self._team_id = team_id
        self._routes = RouteTable(options.routes, free_paths=options.free_paths)

    def find(self, request: SentRequest) -> Provider | ModelLike | None:
        """The provider of a request to be metered, `ModelLike` for one to be refused, `None` for one to pass.

        Raises `RefusedRequestError` for one that several readers would read differently.
        """
        scope = {
            "method": request.method,
            "path": request.url.path,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        with _refusals():
            found = self._found(scope)
        if isinstance(found, ModelLike):
            logger.warning("A request to %r looks like one to a model and is not metered.", found.path[:200])
            return found if self.options.unmetered == "refuse" else None
        return found

    def payer(self, request: SentRequest) -> Identity:
        """Who pays, asked in the thread and the context of the caller. Raises `RefusedRequestError` for nobody."""
        user_id, team_id = _of_request(self._user_id, request), _of_request(self._team_id, request)
        if self._user_id is None and (actor := acting_user()) is not None:
            user_id, team_id = actor.user_id, team_id or actor.team_id
        if user_id is None:
            raise RefusedRequestError(_NOBODY)
        return Identity(user_id, team_id)

    def check(self, request: SentRequest, found: Provider | ModelLike) -> Provider:
        """Refuse by its path or headers a request whose body need not be read. Raises `RefusedRequestError`."""
        if isinstance(found, ModelLike):
            raise RefusedRequestError(_UNMETERED)
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        check_body_headers(headers, max_bytes=self.options.max_body_bytes)
        return found

    async def admit(self, provider: Provider, payer: Identity, body: bytes) -> AdmittedCall:
        """Reserve for one attempt. Raises `RefusedRequestError`, and `ConfigError`, which no answer can mend.

        An `Idempotency-Key` among the headers is the provider's business: each attempt that reaches the provider has
        a hold of its own, and only the one that succeeds is charged.
        """
        with _refusals():
            request = await read_request(body, provider=provider, manager=self.manager, options=self.options)
            return await admit(request, payer, key=None, manager=self.manager, options=self.options)

    def _found(self, scope: dict[str, Any]) -> Provider | ModelLike | None:
        found = self._routes.find(scope)
        if not isinstance(found, ModelLike):
            return found
        path: str = scope["path"]
        behind = path.find("/", 1)
        while behind > 0:
            known = self._routes.find({**scope, "path": path[behind:]})
            if isinstance(known, Provider):
                return known
            behind = path.find("/", behind + 1)
        return found


def answer_of(refusal: Refusal, dialect: Dialect) -> RefusalAnswer:
    """The refusal as the SDK of `dialect` reads it.

    One that is no outage is final here also where waiting might help (429): an SDK that repeats it by itself would
    only keep its caller waiting within the call.
    """
    body = error_body(refusal, dialect)
    headers = refusal_headers(refusal, body=body)
    if not refusal.final and refusal.status < 500:
        headers.append((b"x-should-retry", b"false"))
    return RefusalAnswer(refusal.status, headers, body)


@contextmanager
def _refusals() -> Iterator[None]:
    """What ducto raises within becomes a refusal, but for `ConfigError`, which is the program's fault."""
    try:
        yield
    except ConfigError:
        raise
    except DuctoError as error:
        refusal = refusal_for(error)
        if refusal.status >= 500:
            logger.exception("A call is refused.")
        raise RefusedRequestError(refusal) from None


def _of_request(given: Payer[Any] | None, request: SentRequest) -> str | None:
    return given(request) if callable(given) else given
