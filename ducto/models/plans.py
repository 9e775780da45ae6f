"""Results about plans and monthly allowances."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ducto.models.base import Outcome, Row
from ducto.models.pricing import PlanDefinition, RateTable

__all__ = ["AllowanceResult", "GetUserPlanResult", "SetUserPlanResult"]


class AllowanceResult(Row):
    """The allowance of the current calendar month (UTC). `remaining` is `allowance - used - held`, at least 0."""

    user_id: str
    plan_id: str | None = None
    allowance: int = 0
    used: int = 0
    held: int = 0
    remaining: int = 0
    period_start: datetime
    period_end: datetime
    #: Until then the answer changes only if somebody writes to the account; `None` where the store cannot say. A bound:
    #: the answer may well stay the same for longer.
    stable_until: datetime | None = Field(default=None, repr=False)


class GetUserPlanResult(Row):
    """The user's plan and its definition; `plan_id` is `None` where the user has none and there is no default."""

    user_id: str
    plan_id: str | None = None
    name: str | None = None
    free_allowance: int = 0
    features: tuple[str, ...] = ()
    rate_overrides: dict[str, str | RateTable] = Field(default_factory=dict)
    per_operation: dict[str, int] = Field(default_factory=dict)
    max_concurrent: int | None = None

    def definition(self) -> PlanDefinition | None:
        """The plan as the pricing engine takes it."""
        if self.plan_id is None:
            return None
        return PlanDefinition(
            id=self.plan_id,
            name=self.name or self.plan_id,
            free_allowance=self.free_allowance,
            features=self.features,
            rate_overrides=self.rate_overrides,
            per_operation=self.per_operation,
            max_concurrent=self.max_concurrent,
        )


class SetUserPlanResult(Outcome):
    user_id: str | None = None
    plan_id: str | None = None
    previous_plan_id: str | None = None
