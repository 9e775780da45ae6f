"""The requests that the self-test sends: the smallest that each wire format has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ducto.middleware.providers import DEFAULT_ROUTES, Provider
from ducto.middleware.routes import RouteTable

__all__ = ["PROBED_PATHS", "Canary", "canaries_for"]

#: Paths that are tried though the app does not declare them: a route for everything may serve them. Those without a
#: wire format look like a model's, and must be refused.
PROBED_PATHS = (*DEFAULT_ROUTES, "/v1/batches", "/v1/rerank", "/v1/videos")

_TEXT = "canary"
_MAX_TOKENS = 16
_MESSAGES = [{"role": "user", "content": _TEXT}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One request. `body` is sent as JSON unless it is bytes, with a `content-type` among `headers`."""

    path: str
    body: Mapping[str, Any] | bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    mode: str = "plain"
    #: Its answer tells the usage, so that a charge by an estimate means that it was not read.
    tells_usage: bool = True
    #: What the provider says that it used are text tokens alone, so that the price is known.
    text_only: bool = True


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a format's requests look like. `stream` is laid over the body for a stream, `None` where there is none."""

    body: dict[str, Any]
    stream: dict[str, Any] | None = None
    file: str | None = None
    model_in_body: bool = True
    tells_usage: bool = True
    text_only: bool = True


_STREAM = {"stream": True}
_CHAT = _Shape({"messages": _MESSAGES, "max_tokens": _MAX_TOKENS}, _STREAM)
_GEMINI = {"contents": [{"parts": [{"text": _TEXT}]}], "generationConfig": {"maxOutputTokens": _MAX_TOKENS}}
_CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": _TEXT}]}],
    "inferenceConfig": {"maxTokens": _MAX_TOKENS},
}
_SHAPES: Mapping[str, _Shape] = {
    "openai.chat": _CHAT,
    "openai.completions": _Shape({"prompt": _TEXT, "max_tokens": _MAX_TOKENS}, _STREAM),
    "openai.responses": _Shape({"input": _TEXT, "max_output_tokens": _MAX_TOKENS}, _STREAM),
    "openai.embeddings": _Shape({"input": _TEXT}),
    "openai.images": _Shape({"prompt": _TEXT, "n": 1}, text_only=False),
    "openai.speech": _Shape({"input": _TEXT, "voice": "alloy"}, tells_usage=False, text_only=False),
    "openai.transcriptions": _Shape({}, file="file", text_only=False),
    "openai.translations": _Shape({}, file="file", text_only=False),
    "anthropic.messages": _CHAT,
    "gemini.generate": _Shape(_GEMINI, model_in_body=False),
    "bedrock.converse": _Shape(_CONVERSE, model_in_body=False),
}
#: Routes of a format that take a file all the same.
_FILES = {"/v1/images/edits": "image", "/v1/images/variations": "image"}


def canaries_for(path: str, *, routes: Mapping[str, Provider], model: str) -> list[Canary]:
    """The canaries for a path: a plain one, and a stream where the format has streams."""
    provider = _format_of(path, routes, model)
    shape = _SHAPES.get(provider.name, _CHAT) if provider is not None else _CHAT
    if not shape.model_in_body:
        streams = "stream" in path.rpartition("/")[2].casefold()
        return [Canary(path=path, body=shape.body, mode="stream" if streams else "plain")]
    named = {"model": model, **shape.body}
    file = shape.file or next((field for route, field in _FILES.items() if path.endswith(route)), None)
    if file is not None:
        content, headers = _form(named, file)
        return [
            Canary(path=path, body=content, headers=headers, tells_usage=shape.tells_usage, text_only=shape.text_only)
        ]
    found = [Canary(path=path, body=named, tells_usage=shape.tells_usage, text_only=shape.text_only)]
    if shape.stream is not None:
        found.append(Canary(path=path, body={**named, **shape.stream}, mode="stream"))
    return found


def _format_of(path: str, routes: Mapping[str, Provider], model: str) -> Provider | None:
    """The format of a path, or of the end of one that is below a prefix."""
    known = {**DEFAULT_ROUTES, **routes}
    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    found = RouteTable(known).find(scope)
    if isinstance(found, Provider):
        return found
    ends = (route for route in known if path.endswith(route.replace("{model}", model)))
    longest = max(ends, key=len, default=None)
    return known[longest] if longest is not None else None


def _form(fields: Mapping[str, Any], file: str) -> tuple[bytes, dict[str, str]]:
    """A form with a small file."""
    texts = {name: str(value) for name, value in fields.items()}
    request = httpx.Request("POST", "http://canary", data=texts, files={file: ("canary.wav", b"\0" * 2_000)})
    return request.read(), {"content-type": request.headers["content-type"]}
