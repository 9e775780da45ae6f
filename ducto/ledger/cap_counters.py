"""What counts in the windows of spend caps, and whether the caps let an amount pass."""

from __future__ import annotations

from datetime import datetime

from ducto.errors import CapReachedError, CreditOverflowError
from ducto.ledger.state import Account, CapCounter
from ducto.ledger.windows import window_of
from ducto.models import CapCheckResult, SpendCap
from ducto.usage import MAX_AMOUNT

__all__ = [
    "CapFindings",
    "applicable",
    "check_caps",
    "check_room",
    "count_in_caps",
    "counter_for",
    "current",
    "describe",
    "exceeded_after",
]


class CapFindings:
    """Caps that an amount exceeds and that let it pass all the same."""

    __slots__ = ("notices", "warning")

    def __init__(self) -> None:
        self.warning: CapCheckResult | None = None
        self.notices: tuple[CapCheckResult, ...] = ()

    def note(self, counter: CapCounter) -> None:
        found = describe(counter, allowed=True)
        if counter.cap.action == "notify":
            self.notices = (*self.notices, found)
        elif self.warning is None:
            self.warning = found


def describe(counter: CapCounter, *, allowed: bool) -> CapCheckResult:
    return CapCheckResult(
        allowed=allowed,
        action=counter.cap.action,
        cap=counter.cap,
        spent=counter.spent,
        held=counter.held,
        resets_at=counter.end,
    )


def current(counter: CapCounter, now: datetime) -> CapCounter:
    """The counter for the window of `now`: itself, or a new one with nothing spent and nothing held.

    It is not changed in place, because a read or a refusal must not lose the old window to a clock that steps back.
    """
    return counter if now < counter.end else CapCounter(counter.cap, *window_of(counter.cap.cap_type, now))


def applicable(account: Account, now: datetime, model: str | None) -> list[CapCounter]:
    """The caps that limit a call of `model`, in the order in which they are reported."""
    return [current(counter, now) for counter in account.caps if counter.cap.model in (None, model)]


def check_caps(account: Account, now: datetime, model: str | None, amount: int) -> CapFindings | None:
    """Raise `CapReachedError` for the first denying cap that `amount` exceeds; else what the other caps say."""
    if not account.caps or amount == 0:
        return None
    exceeded = [each for each in applicable(account, now, model) if each.spent + each.held + amount > each.cap.limit]
    findings = CapFindings()
    for counter in exceeded:
        if counter.cap.action == "deny":
            cap = counter.cap
            of_model = "" if cap.model is None else f" for the model {cap.model}"
            raise CapReachedError(
                f"The {cap.cap_type} spend cap{of_model} of {cap.limit} credits does not allow {amount} more: "
                f"{counter.spent} are spent and {counter.held} held. It resets at {counter.end.isoformat()}.",
                limit=cap.limit,
                spent=counter.spent,
                held=counter.held,
                cap_type=cap.cap_type,
                model=cap.model,
                resets_at=counter.end,
            )
        findings.note(counter)
    return findings


def check_room(account: Account, admitted_at: datetime, model: str | None, charged: int) -> None:
    """Refuse a spend that a counter could not hold."""
    if any(each.covers(admitted_at, model) and each.spent > MAX_AMOUNT - charged for each in account.caps):
        raise CreditOverflowError("The spend of a cap's window would exceed 2^53-1 credits.")


def count_in_caps(account: Account, admitted_at: datetime, model: str | None, charged: int) -> None:
    """Count a spend in the windows in which it was admitted, as far as their counters still exist."""
    for counter in account.caps:
        if counter.covers(admitted_at, model):
            counter.spent += charged


def exceeded_after(account: Account, admitted_at: datetime, model: str | None, *, overage: int) -> CapFindings | None:
    """The caps over their limit now that a spend is booked; notices only where it cost more than was reserved."""
    if not account.caps:
        return None
    findings = CapFindings()
    for counter in account.caps:
        exceeded = counter.covers(admitted_at, model) and counter.spent + counter.held > counter.cap.limit
        if exceeded and (counter.cap.action != "notify" or overage > 0):
            findings.note(counter)
    return findings


def counter_for(account: Account, cap: SpendCap, now: datetime) -> CapCounter:
    """A counter filled from what the current window's rows have spent and its open reservations hold."""
    start, end = window_of(cap.cap_type, now)
    counter = CapCounter(cap, start, end)
    for row in reversed(account.rows):
        if row.created_at < start:
            break
        if row.charged and counter.covers(row.booked_at, row.model):
            counter.spent += row.charged
    counter.held = sum(hold.amount for hold in account.open.values() if counter.covers(hold.created_at, hold.model))
    counter.inherited = counter.spent + counter.held
    return counter
