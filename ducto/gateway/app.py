"""Putting the gateway together: upstreams, keys, metering, and a few pages of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto.errors import ConfigError, DuctoError
from ducto.gateway.keys import GatewayKeys
from ducto.gateway.metrics import PrometheusMetrics
from ducto.gateway.upstream import Upstream, UpstreamProxy
from ducto.manager import CreditManager
from ducto.meter import MissingUsage
from ducto.middleware.answers import AnswerCache, InProcess
from ducto.middleware.asgi import MeteringMiddleware
from ducto.middleware.clamp import ClampToAfford
from ducto.middleware.error_bodies import NOBODY, Refusal, error_body, refusal_for, send_refusal
from ducto.middleware.headers import header_values
from ducto.middleware.identity import Identify, Identity, identified
from ducto.middleware.providers import DEFAULT_ROUTES, Dialect, Provider, Tokenizer

__all__ = ["build_gateway"]

logger: logging.Logger = logging.getLogger("ducto.gateway")

#: Connections to the providers that are kept open, and opened at most.
IDLE_CONNECTIONS = 100
MAX_CONNECTIONS = 1_000


def build_gateway(
    manager: CreditManager,
    *,
    openai: Upstream | None = None,
    anthropic: Upstream | None = None,
    keys: Mapping[str, str | Identity] | None = None,
    identify: Identify | None = None,
    routes: Mapping[str, Provider] = DEFAULT_ROUTES,
    max_body_bytes: int = 10_000_000,
    default_output_tokens: int = 16_384,
    tokenizer: Tokenizer | None = None,
    clamp: ClampToAfford | None = None,
    answers: AnswerCache | InProcess | None = "in process",
    missing_usage: MissingUsage | None = None,
    drain_seconds: float = 5.0,
    connect_seconds: float = 10.0,
    first_byte_seconds: float = 600.0,
    idle_seconds: float = 300.0,
    metered: bool = True,
    metrics: PrometheusMetrics | None = None,
) -> Starlette:
    """A gateway: the model routes of each upstream, metered; `/v1/models`; `/v1/credits`; `/healthz`.

    Callers authenticate by `keys` (see `GatewayKeys`), or by `identify`. Their keys never reach a provider, the
    providers' keys never reach them. The manager stays open: who opened it closes it. `metered=False` leaves the
    metering out and everything else as it is, to measure what it costs; such a gateway asks nobody for a key.
    `metrics` adds a page for Prometheus, which asks nobody for a key either; without it there is none. The other
    options are those of `MeteringMiddleware`. A provider that cannot be reached within `connect_seconds` is answered
    for with 502 or 504. Raises `ConfigError` without an upstream, or without one of `keys` and `identify`.
    """
    upstreams: dict[Dialect, Upstream] = {}
    if openai is not None:
        upstreams["openai"] = openai
    if anthropic is not None:
        upstreams["anthropic"] = anthropic
    if not upstreams:
        raise ConfigError("A gateway needs a provider to pass calls on to: give openai=, anthropic= or both.")
    if (keys is None) == (identify is None):
        raise ConfigError("Say who may call: give either keys= or identify=.")
    who: Identify = identify if identify is not None else GatewayKeys(keys or {})
    timeout = httpx.Timeout(connect_seconds, read=max(first_byte_seconds, idle_seconds))
    proxies = {
        dialect: UpstreamProxy(upstream, dialect=dialect, max_body_bytes=2 * max_body_bytes, timeout_seconds=timeout)
        for dialect, upstream in upstreams.items()
    }
    served = {path: provider for path, provider in routes.items() if provider.dialect in proxies}
    metering = Middleware(
        MeteringMiddleware,
        manager,
        identify=who,
        routes=served,
        max_body_bytes=max_body_bytes,
        default_output_tokens=default_output_tokens,
        tokenizer=tokenizer,
        clamp=clamp,
        answers=answers,
        missing_usage=missing_usage,
        drain_seconds=drain_seconds,
        first_byte_seconds=first_byte_seconds,
        idle_seconds=idle_seconds,
    )
    models = _Models(proxies, who)
    app = Starlette(
        routes=[
            *(Route(path, proxies[provider.dialect], methods=["POST"]) for path, provider in served.items()),
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/models/{model:path}", models, methods=["GET"]),
            Route("/v1/credits", _Credits(manager, who).answer, methods=["GET"]),
            Route("/healthz", _Health(manager).answer, methods=["GET"]),
            *([Route(metrics.path, metrics.answer, methods=["GET"])] if metrics is not None else []),
        ],
        middleware=[metering] if metered else [],
        lifespan=_lifespan(list(proxies.values())),
    )
    app.router.redirect_slashes = False
    return app


def _lifespan(proxies: list[UpstreamProxy]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=IDLE_CONNECTIONS)
        # A redirect would take the provider's key to another host; proxies of the environment are not ours to use.
        async with httpx.AsyncClient(limits=limits, follow_redirects=False, trust_env=False) as client:
            for proxy in proxies:
                proxy.client = client
            try:
                yield
            finally:
                for proxy in proxies:
                    proxy.client = None

    return lifespan


class _Models:
    """`/v1/models`: passed on unmetered to the provider whose SDK asks, to callers that we know."""

    def __init__(self, proxies: Mapping[Dialect, ASGIApp], identify: Identify) -> None:
        self._proxies = proxies
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = _dialect_of(scope)
        if dialect not in self._proxies:
            dialect = next(iter(self._proxies))
        refusal = await _refused(self._identify, scope)
        if refusal is not None:
            await send_refusal(send, refusal, dialect=dialect)
            return
        await self._proxies[dialect](scope, receive, send)


class _Credits:
    """`/v1/credits`: what the caller has."""

    def __init__(self, manager: CreditManager, identify: Identify) -> None:
        self._manager = manager
        self._identify = identify

    async def answer(self, request: Request) -> Response:
        try:
            identity = await identified(self._identify, request.scope)
            if identity is None:
                return _refusal_response(NOBODY, request.scope)
            standing = await self._manager.get_available(identity.user_id, team_id=identity.team_id)
        except DuctoError as error:
            return _refusal_response(refusal_for(error), request.scope)
        return JSONResponse(standing.model_dump(mode="json", exclude={"stable_until"}))


class _Health:
    """`/healthz`: can the store be reached?"""

    def __init__(self, manager: CreditManager) -> None:
        self._manager = manager

    async def answer(self, request: Request) -> Response:
        try:
            await self._manager.ping()
        except DuctoError:
            logger.exception("The store does not answer.")
            return JSONResponse({"status": "unavailable"}, status_code=503)
        return JSONResponse({"status": "ok"})


async def _refused(identify: Identify, scope: Scope) -> Refusal | None:
    try:
        return None if await identified(identify, scope) is not None else NOBODY
    except DuctoError as error:
        return refusal_for(error)


def _refusal_response(refusal: Refusal, scope: Scope) -> Response:
    body = error_body(refusal, _dialect_of(scope))
    return Response(body, status_code=refusal.status, media_type="application/json")


def _dialect_of(scope: Scope) -> Dialect:
    """Whose SDK is calling: Anthropic's names the version of its API in every request."""
    return "anthropic" if header_values(scope["headers"], b"anthropic-version") else "openai"
