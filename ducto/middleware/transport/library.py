"""httpx and httpx2, which have the same interface and different classes: what is built of either."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any, Literal, get_args

from ducto.errors import ConfigError
from ducto.middleware.admitting import AdmittedCall
from ducto.middleware.error_bodies import RefusedRequestError
from ducto.middleware.headers import Headers, without_headers
from ducto.middleware.providers import Provider
from ducto.middleware.routes import ModelLike
from ducto.middleware.transport.door import answer_of

__all__ = ["Library", "LibraryName", "load_library"]

LibraryName = Literal["httpx", "httpx2"]

#: What the SDKs give their own clients; httpx alone has a tenth of it, on which many streams would wait.
MAX_CONNECTIONS = 1_000
IDLE_CONNECTIONS = 100

_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})


class Library:
    """One of the two, loaded. Its objects are dynamic here; `metered_transport` has their types."""

    def __init__(self, name: LibraryName, module: Any) -> None:
        self.name = name
        self.module = module
        self.timeout_error: type[Exception] = module.TimeoutException

    def check(self, request: object) -> None:
        """Raises `ConfigError` for a request of the other library, whose client could not use our answers."""
        if not isinstance(request, self.module.Request):
            raise ConfigError(
                f"This transport is for {self.name}, but a client of {type(request).__module__.partition('.')[0]} uses "
                "it; name the library that the client is of: metered_transport(..., library=...)."
            )

    def subclass(self, ours: type, base_name: str) -> type[Any]:
        """`ours` as a subclass of the library's `base_name`, on which its clients insist."""
        return type(ours.__name__, (ours, getattr(self.module, base_name)), {})

    def default_inner(self, *, asynchronous: bool) -> Any:
        """The library's own transport."""
        limits = self.module.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=IDLE_CONNECTIONS)
        made = self.module.AsyncHTTPTransport if asynchronous else self.module.HTTPTransport
        return made(limits=limits)

    def passed_on(self, request: Any, body: bytes, admitted: AdmittedCall) -> Any:
        """The request as the provider gets it: as it is where that can be, else made anew from the bytes read.

        The usage that we ask for is to be taken out of the stream again, so that stream must not be encoded.
        """
        if admitted.new_body is None and isinstance(request.stream, self.module.ByteStream):
            return request
        headers: Headers = without_headers(request.headers.raw, _LENGTHS)
        if admitted.hide_usage:
            headers = [*without_headers(headers, frozenset({b"accept-encoding"})), (b"accept-encoding", b"identity")]
        content = body if admitted.new_body is None else admitted.new_body
        return self.module.Request(
            request.method, request.url, headers=headers, content=content, extensions=request.extensions
        )

    def answered(self, response: Any, headers: Headers, stream: Any) -> Any:
        """`response` with these headers and this stream."""
        return self.module.Response(
            response.status_code, headers=headers, stream=stream, extensions=response.extensions
        )

    def refused(self, refused: RefusedRequestError, found: Provider | ModelLike | None) -> Any:
        """The refusal as an answer that came from the wire; in OpenAI's dialect where none was found."""
        answer = answer_of(refused.refusal, found.dialect if found is not None else "openai")
        return self.module.Response(answer.status, headers=answer.headers, content=answer.body)


@functools.cache
def load_library(name: LibraryName) -> Library:
    """Raises `ConfigError` if it is not installed, or is neither of the two."""
    if name not in get_args(LibraryName):
        raise ConfigError(f"library must be 'httpx' or 'httpx2', not {name!r}.")
    try:
        return Library(name, import_module(name))
    except ImportError:
        raise ConfigError(f"{name} is not installed; install it with: pip install {name}") from None
