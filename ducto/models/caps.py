"""Spend caps: limits on what a user spends in a calendar hour, day or month (UTC)."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from ducto.models.base import Amount, Row

__all__ = ["CapAction", "CapCheckResult", "CapType", "SpendCap"]

CapType = Literal["hourly", "daily", "monthly"]
CapAction = Literal["deny", "warn", "notify"]


class SpendCap(BaseModel):
    """`limit` credits per window for a user, or for one model of the user. There is one cap for each
    (user, window, model): setting it again replaces it.

    `deny` refuses the call, `warn` lets it pass and marks the result, `notify` only emits an event.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    user_id: str
    cap_type: CapType
    limit: Amount
    action: CapAction = "deny"
    model: str | None = None


class CapCheckResult(Row):
    """`cap` is the cap that decided, with what its current window has `spent` and what open reservations hold."""

    allowed: bool
    action: CapAction | None = None
    cap: SpendCap | None = None
    spent: int = 0
    held: int = 0
    resets_at: datetime | None = None
