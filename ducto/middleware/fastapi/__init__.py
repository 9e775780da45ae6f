"""A dependency for FastAPI that meters a path operation. Extra `fastapi`; nothing else of ducto needs FastAPI."""

from __future__ import annotations

import inspect

from ducto.errors import ConfigError

try:
    from fastapi import Depends
except ImportError as error:
    raise ConfigError("RequireCredits needs the extra `fastapi`: pip install 'ducto[fastapi]'.") from error

if "scope" not in inspect.signature(Depends).parameters:
    # Before 0.118 a dependency ended before the response began, so a stream would have been settled before it ran;
    # `scope` came in 0.121, with the exit stacks that the dependency relies on.
    raise ConfigError("RequireCredits needs FastAPI 0.121 or newer: pip install --upgrade 'ducto[fastapi]'.")

from ducto.middleware.fastapi.dependency import Dependency, RequireCredits
from ducto.middleware.fastapi.items import metered_items
from ducto.middleware.fastapi.refusals import REFUSAL_RESPONSES, RefusalBody, RefusalDetail
from ducto.middleware.fastapi.route import CreditRoute

__all__ = [
    "REFUSAL_RESPONSES",
    "CreditRoute",
    "Dependency",
    "RefusalBody",
    "RefusalDetail",
    "RequireCredits",
    "metered_items",
]
