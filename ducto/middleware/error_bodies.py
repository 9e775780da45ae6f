"""Refusals as the caller's own SDK expects them: status, headers, and an error body in its provider's form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.types import Send

from ducto.errors import (
    CallInFlightError,
    ConcurrencyLimitError,
    CreditError,
    DuctoError,
    NotSupportedError,
    PricingError,
    StoreError,
    UnknownModelError,
)
from ducto.middleware.headers import Headers
from ducto.middleware.providers import Dialect

__all__ = ["NOBODY", "Refusal", "RefusedRequestError", "error_body", "refusal_for", "refusal_headers", "send_refusal"]

RETRY_SOON_SECONDS = 1

#: Statuses after which the same request fails again, so that an SDK is told not to repeat it. 409 is judged by code.
_FINAL_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 501})

_OPENAI_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
#: Google's names of a status: https://google.aip.dev/193.
_GEMINI_STATUSES = {
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that says no. `details` stand beside the message in the body."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_seconds: float | None = None
    #: Close the connection, as its unread body is not wanted.
    close: bool = False

    @property
    def final(self) -> bool:
        """Would the same request be refused again?"""
        return self.status in _FINAL_STATUSES or (self.status == 409 and self.code != CallInFlightError.code)


class RefusedRequestError(Exception):
    """Ends the reading of a request with a refusal to be sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


NOBODY = Refusal(
    status=401,
    code="unauthenticated",
    message="This request does not say by whom it is sent; authenticate, for example with an API key.",
)


def refusal_for(error: DuctoError) -> Refusal:
    """What a caller is told of `error`: the numbers of a refusal, and nothing of what went wrong inside."""
    if isinstance(error, CreditError):
        soon = isinstance(error, CallInFlightError | ConcurrencyLimitError)
        return Refusal(
            status=error.http_status,
            code=error.code,
            message=error.message,
            details=error.details,
            retry_after_seconds=RETRY_SOON_SECONDS if soon else None,
        )
    if isinstance(error, UnknownModelError):
        named = f" {error.model!r}" if error.model else ""
        return Refusal(
            status=400,
            code=error.code,
            message=f"No price is known for the model{named}, so it cannot be called here; choose another.",
            details={"param": "model"},
        )
    if isinstance(error, NotSupportedError):
        return Refusal(status=501, code=error.code, message="The credit store cannot do this.")
    if isinstance(error, StoreError):
        asked = error.retry_after_seconds
        return Refusal(
            status=503,
            code="busy" if error.busy else error.code,
            message="The credits cannot be checked just now; retry in a moment.",
            retry_after_seconds=RETRY_SOON_SECONDS if asked is None else asked,
        )
    if isinstance(error, PricingError):
        return Refusal(status=400, code=error.code, message="This call cannot be priced.")
    return Refusal(status=500, code="internal_error", message="The gateway is not set up correctly.")


def error_body(refusal: Refusal, dialect: Dialect) -> bytes:
    """The body as the SDKs of `dialect` parse it."""
    details = {name: _plain(value) for name, value in refusal.details.items()}
    if dialect == "anthropic":
        fallback = "invalid_request_error" if refusal.status < 500 else "api_error"
        error = {"type": _ANTHROPIC_TYPES.get(refusal.status, fallback), "message": refusal.message}
        return json.dumps({"type": "error", "error": {**details, **error, "code": refusal.code}}).encode()
    if dialect == "bedrock":
        return json.dumps({**details, "message": refusal.message, "code": refusal.code}).encode()
    if dialect == "gemini":
        status = _GEMINI_STATUSES.get(refusal.status, "INVALID_ARGUMENT" if refusal.status < 500 else "INTERNAL")
        told = {"code": refusal.status, "message": refusal.message, "status": status}
        return json.dumps({"error": {**told, "details": [{**details, "reason": refusal.code}]}}).encode()
    fallback = "invalid_request_error" if refusal.status < 500 else "server_error"
    param = details.pop("param", None) or details.pop("field", None)
    error = {"message": refusal.message, "type": _OPENAI_TYPES.get(refusal.status, fallback)}
    return json.dumps({"error": {**details, **error, "param": param, "code": refusal.code}}).encode()


def refusal_headers(refusal: Refusal, *, body: bytes) -> Headers:
    """The headers that stand before `body`, the error body of `refusal`."""
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    if refusal.retry_after_seconds is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(refusal.retry_after_seconds))).encode()))
    if refusal.close:
        headers.append((b"connection", b"close"))
    return headers


async def send_refusal(send: Send, refusal: Refusal, *, dialect: Dialect) -> None:
    """Answer with `refusal`. Nothing may have been sent before."""
    body = error_body(refusal, dialect)
    headers = refusal_headers(refusal, body=body)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)
