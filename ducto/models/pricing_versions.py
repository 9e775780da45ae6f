"""Published versions of the pricing config."""

from __future__ import annotations

from datetime import datetime

from ducto.models.base import Row
from ducto.models.pricing import PricingConfigData

__all__ = ["PricingConfigHistoryItem", "PricingConfigResult"]


class PricingConfigHistoryItem(Row):
    """`id` names the row, `version` counts publishes from 1; calls are priced by, and record, the `id`."""

    id: str
    version: int
    label: str | None = None
    active: bool = False
    created_at: datetime


class PricingConfigResult(PricingConfigHistoryItem):
    config: PricingConfigData
