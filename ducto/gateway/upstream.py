"""Passing a request on to a provider, and its answer back, as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
from starlette.types import Receive, Scope, Send

from ducto.errors import ConfigError
from ducto.middleware.body import ClientGoneError, read_body
from ducto.middleware.error_bodies import Refusal, RefusedRequestError, send_refusal
from ducto.middleware.headers import OWN_PREFIX, Headers, header_values
from ducto.middleware.providers import Dialect
from ducto.middleware.routes import route_path

__all__ = ["Upstream", "UpstreamProxy"]

logger: logging.Logger = logging.getLogger("ducto.gateway")

#: RFC 9110, section 7.6.1: these concern one connection, not the message.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: The client's credentials and whereabouts are not the provider's business. Nor is the client's idempotency key: the
#: provider sees all users as one, and could answer one user with another's answer.
_NOT_FOR_PROVIDERS = frozenset(
    {
        b"accept-encoding",
        b"api-key",
        b"authorization",
        b"content-length",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"openai-organization",
        b"openai-project",
        b"via",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
_NOT_FOR_CLIENTS = frozenset({b"set-cookie", b"alt-svc", b"strict-transport-security"})

#: RFC 3986: what a path may hold unencoded, without the percent sign, which comes decoded here.
_PATH_SAFE = "/:@!$&'()*+,;=~"

_NO_SUCH_PATH = Refusal(status=404, code="not_found", message="There is no such path.")
_UNREACHABLE = Refusal(status=502, code="upstream_unreachable", message="The model's provider cannot be reached.")
_TOO_SLOW = Refusal(status=504, code="upstream_timeout", message="The model's provider did not answer in time.")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider: where it is, the key that we have with it, and headers for every request to it.

    `base_url` may end in `/v1` or not, as `https://api.openai.com/v1` and `https://api.anthropic.com` do.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url must start with http:// or https://, not {self.base_url!r}.")

    @property
    def root(self) -> str:
        """What the path of a request is put behind."""
        return self.base_url.rstrip("/").removesuffix("/v1")


class UpstreamProxy:
    """An ASGI app that answers each request with the upstream's answer. `client` is set while the gateway runs."""

    def __init__(
        self, upstream: Upstream, *, dialect: Dialect, max_body_bytes: int, timeout_seconds: httpx.Timeout
    ) -> None:
        self._root = upstream.root
        self._dialect: Dialect = dialect
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._own_headers: Headers = [(b"accept-encoding", b"identity"), *_credentials(upstream, dialect)]
        self._own_headers += [(name.lower().encode(), value.encode()) for name, value in upstream.headers.items()]
        self._own_names = frozenset(name for name, _ in self._own_headers)
        self.client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        if any(part in (".", "..") for part in path.replace("\\", "/").split("/")):
            # It could lead to another route of the provider, with our key.
            await send_refusal(send, _NO_SUCH_PATH, dialect=self._dialect)
            return
        try:
            body = await read_body(scope, receive, max_bytes=self._max_body_bytes)
        except ClientGoneError:
            return
        except RefusedRequestError as refused:
            await send_refusal(send, refused.refusal, dialect=self._dialect)
            return
        forwarding = asyncio.ensure_future(self._forward(scope, path, body, send))
        leaving = asyncio.ensure_future(_client_left(receive))
        try:
            await asyncio.wait((forwarding, leaving), return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done():
                forwarding.result()
        finally:
            # Cancelling the request to the provider closes its connection, which ends its work.
            forwarding.cancel()
            leaving.cancel()
            await asyncio.gather(forwarding, leaving, return_exceptions=True)

    async def _forward(self, scope: Scope, path: str, body: bytes, send: Send) -> None:
        client = self.client
        if client is None:
            raise ConfigError("The gateway has not started; run it with a server that supports ASGI's lifespan.")
        query = scope.get("query_string", b"")
        request = client.build_request(
            scope["method"],
            self._root + quote(path, safe=_PATH_SAFE) + (f"?{query.decode('latin-1')}" if query else ""),
            headers=self._request_headers(scope["headers"]),
            content=body,
            timeout=self._timeout_seconds,
        )
        try:
            response = await client.send(request, stream=True)
        except httpx.TimeoutException:
            await self._give_up(send, _TOO_SLOW)
            return
        except httpx.HTTPError:
            await self._give_up(send, _UNREACHABLE)
            return
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": _response_headers(response.headers.raw),
                }
            )
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.HTTPError as error:
            # The answer is not ended, by which the client learns that it broke off.
            logger.warning("The answer of %s broke off: %s", self._root, type(error).__name__)
        finally:
            await response.aclose()

    async def _give_up(self, send: Send, refusal: Refusal) -> None:
        logger.warning("No answer of %s.", self._root, exc_info=True)
        await send_refusal(send, refusal, dialect=self._dialect)

    def _request_headers(self, headers: Headers) -> Headers:
        dropped = _HOP_BY_HOP | _NOT_FOR_PROVIDERS | self._own_names | _named_by_connection(headers)
        kept = [
            (name, value)
            for name, value in headers
            if name.lower() not in dropped and not name.lower().startswith(OWN_PREFIX)
        ]
        return [*kept, *self._own_headers]


def _credentials(upstream: Upstream, dialect: Dialect) -> Headers:
    if not upstream.api_key:
        return []
    if dialect == "anthropic":
        return [(b"x-api-key", upstream.api_key.encode())]
    return [(b"authorization", b"Bearer " + upstream.api_key.encode())]


def _response_headers(headers: Headers) -> Headers:
    dropped = _HOP_BY_HOP | _NOT_FOR_CLIENTS | _named_by_connection(headers)
    return [(name.lower(), value) for name, value in headers if name.lower() not in dropped]


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    values = b",".join(header_values(headers, b"connection"))
    return frozenset(name.strip().lower() for name in values.split(b",") if name.strip())


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
