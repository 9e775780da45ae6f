"""Metering of language-model calls with prepaid credits: reserve before the call, deduct after it, exactly once.

Every name below loads when it is asked for, so that `import ducto` costs next to nothing and nobody pays for a part
that is not used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from ducto.gateway import build_gateway
    from ducto.journal import SettleJournal
    from ducto.manager import CreditManager, FailOpen
    from ducto.meter import MeteredCall
    from ducto.middleware.asgi import MeteringMiddleware
    from ducto.middleware.decorator import metered
    from ducto.models import CreditMetadata, PlanDefinition, PricingConfigData, RateTable, SpendCap
    from ducto.pricing import PricingEngine, evaluate_expression, validate_expression
    from ducto.stores.base import CreditStore
    from ducto.stores.memory import MemoryStore
    from ducto.usage import ToolCall, UsageMetrics

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

#: Where each name comes from, as the imports above say it to type checkers.
_MODULES = {
    "ArgumentError": "ducto.errors",
    "ConfigError": "ducto.errors",
    "CreditError": "ducto.errors",
    "CreditManager": "ducto.manager",
    "CreditMetadata": "ducto.models",
    "CreditStore": "ducto.stores.base",
    "DuctoError": "ducto.errors",
    "Event": "ducto.events",
    "FailOpen": "ducto.manager",
    "InsufficientCreditsError": "ducto.errors",
    "MemoryStore": "ducto.stores.memory",
    "MeteredCall": "ducto.meter",
    "MeteringMiddleware": "ducto.middleware.asgi",
    "PlanDefinition": "ducto.models",
    "PricingConfigData": "ducto.models",
    "PricingEngine": "ducto.pricing",
    "PricingError": "ducto.errors",
    "RateTable": "ducto.models",
    "SettleJournal": "ducto.journal",
    "SpendCap": "ducto.models",
    "StoreError": "ducto.errors",
    "ToolCall": "ducto.usage",
    "UnknownModelError": "ducto.errors",
    "UsageMetrics": "ducto.usage",
    "acting_as": "ducto.context",
    "build_gateway": "ducto.gateway",
    "evaluate_expression": "ducto.pricing",
    "metered": "ducto.middleware.decorator",
    "validate_expression": "ducto.pricing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)  # Found without this function next time.
    return value


def __dir__() -> list[str]:
    return __all__
