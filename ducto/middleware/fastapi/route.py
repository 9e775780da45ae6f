"""`CreditRoute`: path operations that require credits tell in the OpenAPI schema how they may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from ducto.middleware.fastapi.dependency import RequireCredits
from ducto.middleware.fastapi.refusals import REFUSAL_RESPONSES

__all__ = ["CreditRoute"]


class CreditRoute(APIRoute):
    """A route that documents `REFUSAL_RESPONSES` where `RequireCredits` is among its dependencies, however deep:

        app = FastAPI()
        app.router.route_class = CreditRoute  # or APIRouter(route_class=CreditRoute)

    What the path operation documents itself for a status is kept.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if _requires_credits(self.dependant):
            # A route makes its documentation while it is made, and only then knows its dependencies: so once more.
            own = options.get("responses") or {}
            super().__init__(path, endpoint, **{**options, "responses": {**REFUSAL_RESPONSES, **own}})


def _requires_credits(dependant: Dependant) -> bool:
    return isinstance(dependant.call, RequireCredits) or any(map(_requires_credits, dependant.dependencies))
