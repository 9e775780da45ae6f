"""Plans: which one holds for a user, and assigning one."""

from __future__ import annotations

from datetime import datetime

from ducto import arguments
from ducto.errors import PlanNotFoundError
from ducto.ledger.admission import plan_of
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.state import Book
from ducto.models import GetUserPlanResult, PlanDefinition, SetUserPlanResult

__all__ = ["get_plan", "list_plans", "set_plan"]


def get_plan(book: Book, user_id: str) -> GetUserPlanResult:
    arguments.check_id(user_id)
    plan = plan_of(book, book.user(user_id))
    if plan is None:
        return GetUserPlanResult(user_id=user_id)
    return GetUserPlanResult(
        user_id=user_id,
        plan_id=plan.id,
        name=plan.name,
        free_allowance=plan.free_allowance,
        features=plan.features,
        rate_overrides=plan.rate_overrides,
        per_operation=plan.per_operation,
        max_concurrent=plan.max_concurrent,
    )


def set_plan(book: Book, clock_now: datetime, user_id: str, plan_id: str | None) -> SetUserPlanResult:
    """Assign a plan of the active config. What the month has used stays: allowance is per account, not per plan."""
    arguments.check_id(user_id)
    arguments.check_optional_id(plan_id, name="plan_id")
    active = {} if book.active_pricing is None else book.active_pricing.config.plans
    if plan_id is not None and plan_id not in active:
        raise PlanNotFoundError(
            f"The active pricing config has no plan {plan_id!r}; it has {', '.join(sorted(active)) or 'none'}.",
            plan_id=plan_id,
        )
    account = book.user(user_id)
    now = time_for(account, clock_now)
    previous = plan_of(book, account)
    account = commit(book, begin(account, now), now)
    account.plan_id = plan_id
    assigned = plan_of(book, account)
    return SetUserPlanResult(
        user_id=user_id,
        plan_id=assigned.id if assigned else None,
        previous_plan_id=previous.id if previous else None,
    )


def list_plans(book: Book, *, include_dropped: bool) -> list[PlanDefinition]:
    active = {} if book.active_pricing is None else book.active_pricing.config.plans
    return [plan for plan_id, plan in sorted(book.plans.items()) if include_dropped or plan_id in active]
