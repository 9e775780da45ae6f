"""Spend caps: setting, removing, listing and asking them."""

from __future__ import annotations

from datetime import datetime

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.ledger.cap_counters import applicable, counter_for, describe
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.state import Account, Book, CapCounter
from ducto.models import CapCheckResult, CapType, SpendCap

__all__ = ["check_cap", "list_caps", "remove_cap", "set_cap"]

_WINDOW_ORDER = {"hourly": 0, "daily": 1, "monthly": 2}


def check_cap(book: Book, clock_now: datetime, user_id: str, model: str | None, amount: int | None) -> CapCheckResult:
    """Ask without spending. No amount asks for the least there is, one credit."""
    arguments.check_id(user_id)
    arguments.check_optional_id(model, name="model")
    if amount is not None:
        arguments.check_amount(amount)
    account = book.user(user_id)
    now = time_for(account, clock_now)
    asked = 1 if amount is None else amount
    caps = applicable(begin(account, now), now, model)
    exceeded = [each for each in caps if asked > 0 and each.spent + each.held + asked > each.cap.limit]
    denying = [each for each in exceeded if each.cap.action == "deny"]
    chosen = next(iter(denying or exceeded or caps), None)
    return CapCheckResult(allowed=True) if chosen is None else describe(chosen, allowed=not denying)


def set_cap(book: Book, clock_now: datetime, cap: SpendCap) -> None:
    """Put `cap` in its place in the order of report: model caps first, short windows before long ones."""
    if not isinstance(cap, SpendCap):
        raise ArgumentError(f"cap must be a SpendCap, not {type(cap).__name__}.")
    arguments.check_id(cap.user_id)
    arguments.check_optional_id(cap.model, name="model")
    # A SpendCap may have been built without pydantic's checks.
    arguments.check_choice(cap.cap_type, arguments.CAP_TYPES, name="cap_type")
    arguments.check_choice(cap.action, arguments.CAP_ACTIONS, name="action")
    arguments.check_amount(cap.limit, name="limit")
    account, now = _to_change(book, clock_now, cap.user_id)
    account.caps = [*_others(account, cap.cap_type, cap.model), counter_for(account, cap, now)]
    account.caps.sort(key=lambda each: (each.cap.model is None, _WINDOW_ORDER[each.cap.cap_type], each.cap.model or ""))


def remove_cap(book: Book, clock_now: datetime, user_id: str, cap_type: CapType, model: str | None) -> bool:
    arguments.check_id(user_id)
    arguments.check_choice(cap_type, arguments.CAP_TYPES, name="cap_type")
    arguments.check_optional_id(model, name="model")
    known = book.user(user_id)
    if len(_others(known, cap_type, model)) == len(known.caps):
        return False
    account, _ = _to_change(book, clock_now, user_id)
    account.caps = _others(account, cap_type, model)
    return True


def list_caps(book: Book, user_id: str) -> list[SpendCap]:
    arguments.check_id(user_id)
    return [counter.cap for counter in book.user(user_id).caps]


def _to_change(book: Book, clock_now: datetime, user_id: str) -> tuple[Account, datetime]:
    account = book.user(user_id)
    now = time_for(account, clock_now)
    return commit(book, begin(account, now), now), now


def _others(account: Account, cap_type: CapType, model: str | None) -> list[CapCounter]:
    return [each for each in account.caps if (each.cap.cap_type, each.cap.model) != (cap_type, model)]
