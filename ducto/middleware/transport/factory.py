"""`metered_transport`: what is put under a client, so that its calls of models are metered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware.transport.door import Payer, TransportDoor
from ducto.middleware.transport.library import LibraryName, load_library
from ducto.middleware.transport.metering import MeteredAsyncTransport, MeteredTransport
from ducto.middleware.transport.options import TransportOptions

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = ["metered_transport"]

Mode = Literal["async", "sync"]

_DEFAULTS = TransportOptions()


@overload
def metered_transport(
    manager: CreditManager,
    *,
    user_id: Payer[httpx.Request] | None = None,
    team_id: Payer[httpx.Request] | None = None,
    library: Literal["httpx"] = "httpx",
    mode: Literal["async"] = "async",
    inner: httpx.AsyncBaseTransport | None = None,
    options: TransportOptions = _DEFAULTS,
) -> httpx.AsyncBaseTransport: ...


@overload
def metered_transport(
    manager: CreditManager,
    *,
    user_id: Payer[httpx.Request] | None = None,
    team_id: Payer[httpx.Request] | None = None,
    library: Literal["httpx"] = "httpx",
    mode: Literal["sync"],
    inner: httpx.BaseTransport | None = None,
    options: TransportOptions = _DEFAULTS,
) -> httpx.BaseTransport: ...


@overload
def metered_transport(
    manager: CreditManager,
    *,
    user_id: Payer[httpx2.Request] | None = None,
    team_id: Payer[httpx2.Request] | None = None,
    library: Literal["httpx2"],
    mode: Literal["async"] = "async",
    inner: httpx2.AsyncBaseTransport | None = None,
    options: TransportOptions = _DEFAULTS,
) -> httpx2.AsyncBaseTransport: ...


@overload
def metered_transport(
    manager: CreditManager,
    *,
    user_id: Payer[httpx2.Request] | None = None,
    team_id: Payer[httpx2.Request] | None = None,
    library: Literal["httpx2"],
    mode: Literal["sync"],
    inner: httpx2.BaseTransport | None = None,
    options: TransportOptions = _DEFAULTS,
) -> httpx2.BaseTransport: ...


def metered_transport(
    manager: CreditManager,
    *,
    user_id: Payer[Any] | None = None,
    team_id: Payer[Any] | None = None,
    library: LibraryName = "httpx",
    mode: Mode = "async",
    inner: Any = None,
    options: TransportOptions = _DEFAULTS,
) -> Any:
    """A transport for a client of `library`: `httpx.AsyncClient(transport=metered_transport(manager, user_id=...))`.

    Every attempt of a request to a model's route is reserved for by its worst case before it leaves, released on an
    error status or if it never was answered, and charged at the end of its answer, or when that is closed. A refusal
    comes as an answer of status 402 (or what `ducto.errors` says) with the error body of the provider's dialect, which
    the SDKs raise and do not repeat. Retries of an SDK are attempts of their own.

    * `user_id` and `team_id` say who pays: a name, or a function of the request, called in the caller's thread. By
      default it is who acts, see `ducto.acting_as`; nobody is refused with 401.
    * `library` and `mode` are those of the client: `"httpx"` or `"httpx2"`, `"async"` or `"sync"`.
    * `inner` sends the requests, and is closed with the client: for proxies, certificates, limits. By default it is the
      library's own transport.

    An async client is used on the manager's event loop. A sync one on any thread without a loop: it submits to the
    manager's loop, and raises `ConfigError` where it would block one. Raises `ConfigError` for a `library` that is not
    installed, and for an `inner` of another library or mode.
    """
    loaded = load_library(library)
    if mode not in ("async", "sync"):
        raise ConfigError(f"mode must be 'async' or 'sync', not {mode!r}.")
    base_name = "AsyncBaseTransport" if mode == "async" else "BaseTransport"
    if inner is None:
        inner = loaded.default_inner(asynchronous=mode == "async")
    elif not isinstance(inner, getattr(loaded.module, base_name)):
        raise ConfigError(
            f"inner must be a {library}.{base_name}, not a {type(inner).__module__}.{type(inner).__name__}."
        )
    door = TransportDoor(manager, user_id=user_id, team_id=team_id, options=options)
    made = loaded.subclass(MeteredAsyncTransport if mode == "async" else MeteredTransport, base_name)
    return made(door, loaded, inner)
