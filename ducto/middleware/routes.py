"""Which requests are metered: exact paths, every spelling that an app behind might take for one of them, paths that
name a model, and what merely looks like a model route.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from starlette.types import Scope

from ducto.errors import ConfigError
from ducto.middleware.providers import Dialect, Provider

__all__ = ["FREE_PATHS", "ModelLike", "RouteTable", "Unmetered", "route_path"]

#: What becomes of a request that looks like one to a model but is not metered.
Unmetered = Literal["refuse", "log"]

#: Paths that look like model routes and cost nothing.
FREE_PATHS = frozenset({"/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/moderations"})

#: Methods by which no provider is asked to do work.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})

_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")
#: Below a version, as in `/v1/images/generations`, these are a provider's.
_MODEL_WORDS = frozenset(
    {
        *("assistants", "audio", "batches", "chat", "completions", "embeddings", "fine_tuning", "images", "messages"),
        *("realtime", "rerank", "responses", "speech", "threads", "transcriptions", "videos"),
    }
)
#: What other providers' model routes end with.
_MODEL_ENDS = re.compile(
    r"/(?:chat|engines/[^/]+|deployments/[^/]+)/completions$"
    r"|/deployments/[^/]+/(?:embeddings|images|audio|responses)(?:/|$)"
    r"|:(?:streamgenerate|generate|batchgenerate|embed|batchembed)[a-z]*$|:(?:raw|streamraw|server-streaming-)?predict$"
)
#: Bedrock's, where `/model/` and a name comes before; the name may be an ARN, which has slashes.
_BEDROCK_ENDS = re.compile(r"/(?:invoke|converse)[a-z-]*$")
#: What stands for the name of a model in the path of a route, and what such a name may be. Anything else in its place
#: is no name that every app behind would read alike.
_MODEL_PLACE = "{model}"
_MODEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9@._:-]|/(?=[A-Za-z0-9])){0,199}")
#: Encodings within encodings that are taken off.
_MAX_DECODINGS = 4


@dataclass(frozen=True, slots=True)
class ModelLike:
    """A request that may reach a model without being metered."""

    path: str
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class _Template:
    """A path with the name of a model in it."""

    before: str
    after: str
    provider: Provider

    @classmethod
    def of(cls, path: str, provider: Provider) -> _Template:
        before, _, after = path.partition(_MODEL_PLACE)
        if not before.endswith("/") or not after or "{" in after:
            raise ConfigError(
                f"{path!r} must have {_MODEL_PLACE} once, after a '/' and before something, and no other braces."
            )
        return cls(before, after, provider)

    def model_in(self, path: str) -> str | None:
        """The model that `path` names, `None` if it is another path. Only this very spelling is read."""
        if not path.startswith(self.before) or not path.endswith(self.after):
            return None
        name = path[len(self.before) : -len(self.after)]
        return name if _MODEL_NAME.fullmatch(name) and ".." not in name else None

    def resembles(self, path: str) -> bool:
        """Might an app behind take the canonical `path` for this route?"""
        return path.endswith(self.after.casefold()) and canonical(self.before) + "/" in path


class RouteTable:
    """Finds the provider of a request by its path and method.

    An exact path is found at once. Any other is brought into one form (percent-encodings decoded, also repeated
    ones; letter case, `//`, `.` and `..`, backslashes, parameters after `;` and a trailing slash taken away), because
    an app behind may do the same: what then is a metered path is metered as such. A path with `{model}` in it is found
    by its exact spelling alone, because the name of the model decides about the price; other spellings are suspicious.
    """

    def __init__(self, routes: Mapping[str, Provider], *, free_paths: Collection[str] = FREE_PATHS) -> None:
        if not routes:
            raise ConfigError("routes is empty, so nothing would be metered; give at least one path.")
        for path in (*routes, *free_paths):
            if not path.startswith("/"):
                raise ConfigError(f"The path of a route must start with '/', not {path!r}.")
        self._exact = {path: provider for path, provider in routes.items() if "{" not in path}
        self._canonical = {canonical(path): provider for path, provider in self._exact.items()}
        self._templates = [_Template.of(path, provider) for path, provider in routes.items() if "{" in path]
        self._free = frozenset(canonical(path) for path in free_paths)

    def find(self, scope: Scope) -> Provider | ModelLike | None:
        """The provider of an HTTP request to be metered, bound to it; `ModelLike` for a suspicious one; `None` for any
        other.
        """
        method = scope["method"].upper()
        if method == "POST":
            path = route_path(scope)
            provider = self._exact.get(path)
            if provider is not None:
                return provider.bind(model=None, headers=scope["headers"])
            for template in self._templates:
                model = template.model_in(path)
                if model is not None:
                    return template.provider.bind(model=model, headers=scope["headers"])
            provider = self._canonical.get(canonical(path))
            if provider is not None:
                return provider.bind(model=None, headers=scope["headers"])
        elif method in _SAFE_METHODS and not _overrides_method(scope):
            return None
        return self.suspicion(scope)

    def suspicion(self, scope: Scope) -> ModelLike | None:
        """Does the path look like a model's, whatever the method (or a WebSocket)?"""
        path = canonical(route_path(scope))
        if path in self._free:
            return None
        known = self._canonical.get(path)
        if known is None:
            known = next((one for route, one in self._canonical.items() if path.endswith(route)), None)
        if known is None:
            known = next((one.provider for one in self._templates if one.resembles(path)), None)
        if known is not None:
            return ModelLike(path, known.dialect)
        if "/model/" in path and _BEDROCK_ENDS.search(path):
            return ModelLike(path, "bedrock")
        if _is_below_version(path) or _MODEL_ENDS.search(path):
            return ModelLike(path, "anthropic" if "/messages" in path else "openai")
        return None


def canonical(path: str) -> str:
    """One form for all spellings of a path that some server treats alike."""
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    parts: list[str] = []
    for part in path.casefold().replace("\\", "/").split("/"):
        name = part.split(";", 1)[0].split("?", 1)[0].split("#", 1)[0].strip().strip("\x00")
        if name == "..":
            del parts[-1:]
        elif name not in ("", "."):
            parts.append(name)
    return "/" + "/".join(parts)


def route_path(scope: Scope) -> str:
    """The path below the prefix under which the app is mounted, if the server left the prefix in the path."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] == "/":
        return path[len(root) :]
    return path


def _is_below_version(path: str) -> bool:
    versioned = False
    for part in path.split("/"):
        if versioned and part in _MODEL_WORDS:
            return True
        versioned = versioned or _VERSION.fullmatch(part) is not None
    return False


def _overrides_method(scope: Scope) -> bool:
    return any(b"method" in name.lower() and b"x-" in name.lower() for name, _ in scope["headers"])
