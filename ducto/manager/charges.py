"""What is to be charged: for a reservation, or by itself."""

from __future__ import annotations

from dataclasses import dataclass

from ducto.models import Metadata
from ducto.usage import UsageMetrics

__all__ = ["Charge", "Settlement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A charge for a reservation. The reservation is its key: repeating it charges once."""

    user_id: str
    reservation_id: str
    amount: int
    team_id: str | None = None
    idempotency_key: str | None = None
    metadata: Metadata = None
    usage: UsageMetrics | None = None
    estimated: bool = False
    model: str | None = None
    pricing_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A charge without a reservation, under a key that is always given."""

    user_id: str
    amount: int
    idempotency_key: str
    team_id: str | None = None
    operation_type: str = "charge"
    metadata: Metadata = None
    usage: UsageMetrics | None = None
    estimated: bool = False
    model: str | None = None
    feature: str | None = None
    pricing_version: str | None = None
    min_balance: int = 0
    force: bool = False
