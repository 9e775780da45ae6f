"""`self_test`: a canary through every model route of an app, and what the books say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from starlette.types import ASGIApp

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware.identity import Identity
from ducto.pricing.resolution import DEFAULT
from ducto.testing.coverage.canaries import PROBED_PATHS, Canary, canaries_for
from ducto.testing.coverage.discovery import DeclaredRoute, declared_routes, looks_like_a_model, metered_routes_of
from ducto.testing.coverage.judging import BookWatch, judge, judge_socket
from ducto.testing.coverage.report import RouteResult, SelfTestReport
from ducto.testing.coverage.sending import running, send_canary, send_to_socket
from ducto.testing.simulator import ProviderSimulator

__all__ = ["self_test"]


async def self_test(
    app: ASGIApp,
    manager: CreditManager,
    *,
    user: str | Identity = "canary",
    headers: Mapping[str, str] | None = None,
    provider: ProviderSimulator | None = None,
    model: str | None = None,
    canaries: Sequence[Canary] = (),
    run_lifespan: bool = True,
    settle_seconds: float = 10.0,
) -> SelfTestReport:
    """Send a canary through every model route of `app`, and report those on which the balance did not move as it
    should.

    * The app must reach a scripted provider instead of the real one: build it so that it calls `provider`, whose
      record of requests then says what each call truly used. Without it the usage in the answers is believed.
    * `headers` authenticate the canaries; `user` is whom the app then takes them for, and has credits. Nobody else
      calls as this user meanwhile.
    * The routes tried are those that the app declares and that look like a model's, WebSockets among them, and the
      paths of the known wire formats. `canaries` are sent besides, for routes that do not look like a model's.
    * `model` is asked for, by default one of the active pricing config.
    * `run_lifespan` starts and stops the app; an app that runs already is left alone with `False`.
    * What is held by a call must be charged or freed within `settle_seconds`.

    Every canary is a real call to the app: it is charged, and has whatever other effects its route has. Raises
    `ConfigError` where no pricing config is published, and for an app that does not start.
    """
    results: list[RouteResult] = []
    async with AsyncExitStack() as stack:
        if run_lifespan:
            await stack.enter_async_context(running(app))
        asked = model if model is not None else await _priced_model(manager)
        identity = user if isinstance(user, Identity) else Identity(user)
        watch = BookWatch(manager, identity, settle_seconds=settle_seconds)
        routes = metered_routes_of(app)
        declared = declared_routes(app, model=asked)
        own = {canary.path for canary in canaries}
        tried = [route for route in declared if route.path not in own and looks_like_a_model(route, routes=routes)]
        probed = [path.replace("{model}", asked) for path in (*PROBED_PATHS, *routes)]
        paths = dict.fromkeys([*(route.path for route in tried if not route.websocket), *probed])
        sent = [one for path in paths if path not in own for one in canaries_for(path, routes=routes, model=asked)]
        for canary in (*sent, *canaries):
            await watch.begin()
            before = len(provider.requests) if provider is not None else 0
            answer = await send_canary(app, canary, headers=headers or {})
            seen = provider.requests[before:] if provider is not None else []
            result = await judge(canary, answer, watch, seen=seen, model=asked)
            if result is not None:
                results.append(result)
        for route in tried:
            if route.websocket:
                await watch.begin()
                opened = await send_to_socket(app, route.path, headers=headers or {})
                results.append(await judge_socket(route.path, opened, watch))
    not_tried = [_named(route) for route in declared if route not in tried and route.path not in own]
    return SelfTestReport(results=tuple(results), not_tried=tuple(not_tried), model=asked)


def _named(route: DeclaredRoute) -> str:
    return f"{'WEBSOCKET' if route.websocket else 'POST'} {route.path}"


async def _priced_model(manager: CreditManager) -> str:
    """A model that has a price: the first by its own name, else one that fits the first pattern."""
    active = await manager.get_active_pricing()
    if active is None:
        raise ConfigError("No pricing config is published in this store, so no call can be priced; publish one.")
    names = [name for name in active.config.models if name != DEFAULT]
    exact = [name for name in names if not set(name) & set("*?")]
    if exact:
        return exact[0]
    if names:
        return names[0].replace("*", "canary").replace("?", "x")
    raise ConfigError("The pricing config names no model; say with model= which one the canaries are to ask for.")
