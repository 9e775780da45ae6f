"""Reading a request's body: whole, but never more than the limit."""

from __future__ import annotations

from starlette.types import Receive, Scope

from ducto.middleware.error_bodies import Refusal, RefusedRequestError
from ducto.middleware.headers import Headers, header_values

__all__ = ["ClientGoneError", "check_body_headers", "read_body", "too_large"]


class ClientGoneError(Exception):
    """The client left before its request was complete."""


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """The body, of at most `max_bytes`: by its declared length where there is one, and counted in any case.

    Raises `RefusedRequestError` (413, or 415 for an encoded body, which could be a bomb) and `ClientGoneError`.
    """
    check_body_headers(scope["headers"], max_bytes=max_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise too_large(max_bytes)
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def check_body_headers(headers: Headers, *, max_bytes: int) -> None:
    """Refuse by its headers a body that need not be read: their names are in lower case.

    Raises `RefusedRequestError` (400, 413, 415).
    """
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit():
                raise RefusedRequestError(Refusal(status=400, code="invalid_argument", message="Bad Content-Length."))
            # Its text is limited too, because Python refuses to convert very long numbers.
            if len(value) > 18 or int(value) > max_bytes:
                raise too_large(max_bytes)
    encodings = b",".join(header_values(headers, b"content-encoding")).strip().lower()
    if encodings not in (b"", b"identity"):
        raise RefusedRequestError(
            Refusal(
                status=415,
                code="unsupported_encoding",
                message="An encoded (compressed) request body is not accepted here; send it plain.",
            )
        )


def too_large(max_bytes: int) -> RefusedRequestError:
    """413, to be raised."""
    return RefusedRequestError(
        Refusal(
            status=413,
            code="request_too_large",
            message=f"The request body is larger than {max_bytes} bytes; send a smaller one.",
            details={"max_bytes": max_bytes},
            close=True,
        )
    )
