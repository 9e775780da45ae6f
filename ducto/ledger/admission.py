"""Whether an amount may be spent: the checks that a reserve and a direct charge share, in their order.

Plan and feature, then concurrency, then caps, then funds, then overflow. The order is the precedence of refusals.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from ducto.errors import (
    ConcurrencyLimitError,
    CreditOverflowError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    MemberCapReachedError,
    NotAMemberError,
    TeamNotFoundError,
)
from ducto.ledger.cap_counters import CapFindings, check_caps
from ducto.ledger.state import Account, Book, Member
from ducto.ledger.windows import month_of, month_window
from ducto.models import PlanDefinition
from ducto.usage import MAX_AMOUNT

__all__ = [
    "Admission",
    "account_of",
    "admit",
    "allowance_left",
    "check_debt",
    "check_funds",
    "member_of",
    "plan_for",
    "plan_of",
    "short_of_credits",
]


class Admission(NamedTuple):
    """How an admitted amount is paid: this much allowance, the rest money."""

    allowance: int
    money: int
    plan_id: str | None
    findings: CapFindings | None


def account_of(book: Book, user_id: str, team_id: str | None) -> tuple[Account, str]:
    """The account that pays, and the acting user as keys know it: empty but for a team."""
    if team_id is None:
        return book.user(user_id), ""
    team = book.team(team_id)
    if team is None:
        raise TeamNotFoundError(f"There is no team {team_id!r}.")
    return team, user_id


def member_of(work: Account, user_id: str) -> Member | None:
    """Who acts on a team's account as it stands, else `None`; raises `NotAMemberError` for one who is not in it."""
    if work.kind == "user":
        return None
    member = work.members.get(user_id)
    if member is None or not member.is_member:
        raise NotAMemberError(f"{user_id!r} is not a member of the team {work.id!r}.")
    return member


def plan_of(book: Book, account: Account) -> PlanDefinition | None:
    """The assigned plan, else the active config's default."""
    if not book.plans:
        return None
    plan_id = account.plan_id
    if plan_id is None and book.active_pricing is not None:
        plan_id = book.active_pricing.config.default_plan
    return None if plan_id is None else book.plans.get(plan_id)


def plan_for(book: Book, account: Account, member: Member | None) -> PlanDefinition | None:
    """Price, features, allowance and concurrency follow the plan of who acts, also where a team pays."""
    return plan_of(book, account if member is None else book.user(member.user_id))


def allowance_left(account: Account, plan: PlanDefinition | None, month: int) -> int:
    """What the plan gives for the month, less what is used and held of it. A downgrade never goes below 0."""
    if plan is None or plan.free_allowance == 0 or account.kind == "team":
        return 0
    use = account.allowances.get(month)
    return plan.free_allowance if use is None else max(0, plan.free_allowance - use.used - use.held)


def admit(
    book: Book,
    account: Account,
    member: Member | None,
    now: datetime,
    amount: int,
    min_balance: int,
    model: str | None,
    feature: str | None,
    max_concurrent: int | None = None,
    counts_as_open: bool = False,
) -> Admission:
    """Check that `amount` may be spent now and say how it is paid; raise the refusal where it may not.

    `member` is who acts where a team pays, else `None`, as from `member_of`.
    `counts_as_open` asks for a place among the open reservations as well.
    """
    plan = plan_for(book, account, member) if book.plans else None
    if feature is not None and (plan is None or feature not in plan.features):
        named = "no plan" if plan is None else f"the plan {plan.id!r}"
        raise FeatureNotEntitledError(
            f"The feature {feature!r} is not part of {named}.",
            feature=feature,
            plan_id=plan.id if plan else None,
        )
    if counts_as_open:
        _check_concurrency(account, member, plan, max_concurrent)
    findings = None
    if member is None:
        findings = check_caps(account, now, model, amount) if account.caps else None
    elif member.spend_cap is not None:
        _check_member_cap(member, now, amount)
    allowance = min(amount, allowance_left(account, plan, month_of(now))) if plan is not None else 0
    money = amount - allowance
    # What needs no money is refused to a real debtor alone.
    check_funds(account, money, min_balance if money > 0 else min(0, min_balance))
    if account.held > MAX_AMOUNT - amount:
        raise CreditOverflowError("The credits held would exceed 2^53-1.")
    return Admission(allowance, money, plan.id if plan else None, findings)


def check_funds(account: Account, money: int, floor: int) -> None:
    """Raise `InsufficientCreditsError` unless `floor` stays available when `money` is gone."""
    free = account.balance - account.held
    if free - money < floor:
        raise short_of_credits(money, free, account.balance, floor)


def short_of_credits(money: int, free: int, balance: int, floor: int) -> InsufficientCreditsError:
    """The refusal of `money` where `free` of `balance` is available and `floor` must be left."""
    return InsufficientCreditsError(
        f"{money} credits are needed and {free} are available, of which {floor} must be left.",
        required=money,
        available=free,
        balance=balance,
        min_balance=floor,
    )


def check_debt(account: Account, money: int) -> None:
    """Raise `CreditOverflowError` where the debt would be more than a balance can hold."""
    if account.balance - money < -MAX_AMOUNT:
        raise CreditOverflowError("The debt would exceed 2^53-1 credits.")


def _check_concurrency(
    account: Account, member: Member | None, plan: PlanDefinition | None, max_concurrent: int | None
) -> None:
    limit = max_concurrent
    if limit is None:
        if plan is None or plan.max_concurrent is None:
            return
        limit = plan.max_concurrent
    active = len(account.open) if member is None else member.open_holds
    if active >= limit:
        raise ConcurrencyLimitError(
            f"{active} calls are running and {limit} may run at once; retry when one has ended.",
            active=active,
            max_concurrent=limit,
        )


def _check_member_cap(member: Member, now: datetime, amount: int) -> None:
    use = member.use(month_of(now))
    if amount > 0 and member.spend_cap is not None and use.spent + use.held + amount > member.spend_cap:
        monthly = member.spend_cap_window == "month"
        raise MemberCapReachedError(
            f"The member's cap of {member.spend_cap} credits does not allow {amount} more: {use.spent} are spent and "
            f"{use.held} held.",
            limit=member.spend_cap,
            spent=use.spent,
            held=use.held,
            resets_at=month_window(now)[1] if monthly else None,
        )
