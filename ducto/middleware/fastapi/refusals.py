"""What `RequireCredits` answers for a path operation: FastAPI's exceptions, and their documentation for OpenAPI."""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import HTTPException, WebSocketException
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python
from starlette.requests import HTTPConnection

from ducto.middleware.error_bodies import Refusal, refusal_headers

__all__ = ["REFUSAL_RESPONSES", "RefusalBody", "RefusalDetail", "refused"]

#: RFC 6455, section 7.4.1: the message violates the endpoint's policy.
_POLICY_VIOLATION = 1008


class RefusalDetail(BaseModel):
    """Why a call was refused, and the numbers of it; which ones there are depends on the code. Amounts are credits."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    code: str = Field(description="Stable name of the refusal.", examples=["insufficient_credits"])
    message: str = Field(description="The refusal in a sentence, for people.")
    required: int | None = Field(None, description="What the call may cost at most.")
    available: int | None = Field(None, description="What could be reserved.")
    balance: int | None = Field(None, description="The balance, holds included.")
    limit: int | None = Field(None, description="The limit of the spend cap that refused.")
    spent: int | None = Field(None, description="What counts against the cap.")
    held: int | None = Field(None, description="What is held against the cap.")
    resets_at: str | None = Field(None, description="When the cap begins anew, as ISO 8601.")


class RefusalBody(BaseModel):
    """The body of a refusal."""

    detail: RefusalDetail


def _documented(description: str, *, retry: bool = False) -> dict[str, Any]:
    headers = {
        "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
        "x-should-retry": {
            "description": "`false`: the same request is refused again.",
            "schema": {"type": "string", "enum": ["false"]},
        },
    }
    name = "Retry-After" if retry else "x-should-retry"
    return {"model": RefusalBody, "description": description, "headers": {name: headers[name]}}


#: For `responses=` of a path operation, a router or an app: what `RequireCredits` may answer.
REFUSAL_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: _documented("No price is known for the model, or an argument is not valid."),
    401: _documented("Nobody is authenticated."),
    402: _documented("Not enough credits, or a spend cap is reached."),
    403: _documented("The caller's plan does not have the feature, or the caller is not a member of the team."),
    409: _documented("The call with this idempotency key is still running (`call_in_flight`), or was charged."),
    429: _documented("The caller has too many calls open.", retry=True),
    503: _documented("The credits cannot be checked just now.", retry=True),
}


def refused(refusal: Refusal, connection: HTTPConnection) -> HTTPException | WebSocketException:
    """The exception that answers `connection` with `refusal`."""
    if connection.scope["type"] == "websocket":
        return WebSocketException(code=_POLICY_VIOLATION, reason=refusal.code)
    detail = to_jsonable_python({**refusal.details, "code": refusal.code, "message": refusal.message})
    headers = {
        name.decode(): value.decode()
        for name, value in refusal_headers(refusal, body=b"")
        if not name.startswith(b"content-")
    }
    return HTTPException(status_code=refusal.status, detail=detail, headers=headers)
