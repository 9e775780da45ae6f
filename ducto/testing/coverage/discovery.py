"""What an app offers: its declared routes, the middleware on it, and whose books it uses."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.routing import Host, Mount, Route, WebSocketRoute

from ducto.manager import CreditManager
from ducto.middleware.asgi import MeteringMiddleware
from ducto.middleware.providers import DEFAULT_ROUTES, Provider
from ducto.middleware.routes import RouteTable

__all__ = ["DeclaredRoute", "declared_routes", "looks_like_a_model", "manager_of", "metered_routes_of"]

_PARAMETER = re.compile(r"{[^{}]*}")
#: How deep apps may be mounted within each other, and middleware around them.
_MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """A route that takes work: a POST, or a WebSocket. Parameters of the path are filled in."""

    path: str
    websocket: bool


def declared_routes(app: Any, *, model: str) -> list[DeclaredRoute]:
    """The routes that `app` declares, below mounts and behind middleware too; `model` stands for what a path names."""
    found: dict[DeclaredRoute, None] = {}
    for route, path in _routes(app, ""):
        filled = _PARAMETER.sub(lambda _: model, path)
        if isinstance(route, WebSocketRoute):
            found[DeclaredRoute(filled, True)] = None
        elif isinstance(route, Route) and (route.methods is None or "POST" in route.methods):
            found[DeclaredRoute(filled, False)] = None
    return list(found)


def looks_like_a_model(route: DeclaredRoute, *, routes: Mapping[str, Provider]) -> bool:
    """Would the middleware take the route for a model's?"""
    table = RouteTable({**DEFAULT_ROUTES, **routes})
    scope = {"type": "http", "method": "POST", "path": route.path, "headers": []}
    return (table.suspicion(scope) if route.websocket else table.find(scope)) is not None


def metered_routes_of(app: Any) -> dict[str, Provider]:
    """The routes that middleware on `app` meters."""
    found: dict[str, Provider] = {}
    for part in _parts(app):
        if isinstance(part, MeteringMiddleware):
            found.update(part.metered_routes)
        for entry in _metering_entries(part):
            found.update(entry.kwargs.get("routes", DEFAULT_ROUTES))
    return found


def manager_of(app: Any) -> CreditManager | None:
    """The manager by which `app` is metered: that of its middleware, or of a `RequireCredits` in it."""
    for part in _parts(app):
        if isinstance(part, MeteringMiddleware):
            return part.manager
        for entry in _metering_entries(part):
            given = entry.kwargs.get("manager", entry.args[0] if entry.args else None)
            if isinstance(given, CreditManager):
                return given
    for route, _ in _routes(app, ""):
        for call in _dependencies(getattr(route, "dependant", None)):
            given = getattr(call, "manager", None)
            if isinstance(given, CreditManager):
                return given
    return None


def _metering_entries(part: Any) -> Iterator[Any]:
    """Middleware of ours that a Starlette app has noted and not built yet."""
    for entry in getattr(part, "user_middleware", ()):
        if isinstance(entry.cls, type) and issubclass(entry.cls, MeteringMiddleware):
            yield entry


def _parts(app: Any) -> Iterator[Any]:
    """`app`, what is inside of its middleware, and what is mounted in it."""
    yield from _layers(app)
    for route, _ in _routes(app, ""):
        if isinstance(route, Mount | Host):
            yield from _layers(route.app)


def _layers(app: Any) -> Iterator[Any]:
    """`app`, and what it is around."""
    for _ in range(_MAX_DEPTH):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)


def _routes(app: Any, prefix: str, depth: int = 0) -> Iterator[tuple[Any, str]]:
    """Every route with its whole path."""
    if depth == _MAX_DEPTH:
        return
    listed = next((routes for layer in _layers(app) if (routes := getattr(layer, "routes", None)) is not None), ())
    for route, path in _flat(listed):
        yield route, prefix + path
        if isinstance(route, Mount | Host):
            below = prefix + path if isinstance(route, Mount) else prefix
            yield from _routes(route.app, below.rstrip("/"), depth + 1)


def _flat(routes: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Routes and their paths. FastAPI keeps those of an included router inside of it, since some version of it."""
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    if contexts is None:
        for route in routes:
            yield route, getattr(route, "path", "")
        return
    for context in contexts(list(routes)):
        yield context.original_route, context.path or ""


def _dependencies(dependant: Any) -> Iterator[Any]:
    """What a path operation of FastAPI depends on."""
    for one in getattr(dependant, "dependencies", ()):
        yield one.call
        yield from _dependencies(one)
