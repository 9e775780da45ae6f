"""Metering of language-model calls with prepaid credits: reserve before the call, deduct after it, exactly once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ducto.context import acting_as
from ducto.errors import (
    ArgumentError,
    ConfigError,
    CreditError,
    DuctoError,
    InsufficientCreditsError,
    PricingError,
    StoreError,
    UnknownModelError,
)
from ducto.events import Event
from ducto.journal import SettleJournal
from ducto.manager import CreditManager, FailOpen
from ducto.meter import MeteredCall
from ducto.models import CreditMetadata, PlanDefinition, PricingConfigData, RateTable, SpendCap
from ducto.pricing import PricingEngine, evaluate_expression, validate_expression
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.usage import ToolCall, UsageMetrics

if TYPE_CHECKING:
    from ducto.gateway import build_gateway
    from ducto.middleware.asgi import MeteringMiddleware
    from ducto.middleware.decorator import metered

__all__ = [
    "ArgumentError",
    "ConfigError",
    "CreditError",
    "CreditManager",
    "CreditMetadata",
    "CreditStore",
    "DuctoError",
    "Event",
    "FailOpen",
    "InsufficientCreditsError",
    "MemoryStore",
    "MeteredCall",
    "MeteringMiddleware",
    "PlanDefinition",
    "PricingConfigData",
    "PricingEngine",
    "PricingError",
    "RateTable",
    "SettleJournal",
    "SpendCap",
    "StoreError",
    "ToolCall",
    "UnknownModelError",
    "UsageMetrics",
    "acting_as",
    "build_gateway",
    "evaluate_expression",
    "metered",
    "validate_expression",
]

#: The doors load when they are asked for: who uses one of them does not pay for the others.
_DOORS = {
    "MeteringMiddleware": "ducto.middleware.asgi",
    "build_gateway": "ducto.gateway",
    "metered": "ducto.middleware.decorator",
}


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(import_module(_DOORS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
