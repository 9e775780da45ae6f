"""Refusals as the proxy sends them: the status, headers and body that the other doors send."""

from __future__ import annotations

import json
from typing import Any

from litellm.proxy._types import ProxyException  # type: ignore[import-not-found]

from ducto.middleware.error_bodies import Refusal, error_body, refusal_headers
from ducto.middleware.providers import Dialect

__all__ = ["RefusedCallError"]

#: Those of the body, which the proxy writes itself.
_OF_THE_BODY = frozenset({"content-type", "content-length"})


class RefusedCallError(ProxyException):  # type: ignore[misc]
    """Raised before the call, it becomes the answer to the client, also where a stream was asked for."""

    def __init__(self, refusal: Refusal, *, dialect: Dialect) -> None:
        body = error_body(refusal, dialect)
        self._error: dict[str, Any] = json.loads(body)["error"]
        headers = {name.decode(): value.decode() for name, value in refusal_headers(refusal, body=body)}
        super().__init__(
            # On Anthropic's route LiteLLM passes a message that is an error body of Anthropic's on as the body.
            message=body.decode() if dialect == "anthropic" else refusal.message,
            type=self._error.get("type", "invalid_request_error"),
            param=self._error.get("param"),
            code=refusal.status,
            headers={name: value for name, value in headers.items() if name not in _OF_THE_BODY},
        )

    def to_dict(self) -> dict[str, Any]:
        """The error object of our own body, where LiteLLM's would have the status in the place of the code."""
        return self._error
