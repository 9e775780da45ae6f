"""Results about reservations: the credits held for a running call, and how the hold ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ducto.models.balances import GrantPart
from ducto.models.base import Outcome, Row
from ducto.models.caps import CapCheckResult

__all__ = [
    "DeductionResult",
    "OveragePolicy",
    "ReapResult",
    "ReleaseResult",
    "RenewResult",
    "Reservation",
    "ReservationPage",
    "ReservationState",
    "ReserveResult",
]

#: What happens when a call costs more than was reserved. `debt` charges all of it, `clamp` charges down to the
#: floor and records the rest as unbilled, `reject` refuses and leaves the reservation active.
OveragePolicy = Literal["debt", "clamp", "reject"]
#: `expired` means: past its expiry and its grace; within the grace a reservation still counts as active.
ReservationState = Literal["active", "settled", "released", "expired"]


class ReserveResult(Outcome):
    """`amount` is what the call may cost; `held` is the part of it that the balance holds, the rest is allowance.

    On a replay everything is as first answered, save `state`, which tells what has become of the reservation. So it is
    for the attempt that made the reservation and asks again, which is not `replayed`.
    """

    reservation_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    amount: int = 0
    held: int = 0
    balance: int = 0
    available: int = 0
    state: ReservationState | None = None
    expires_at: datetime | None = None
    plan_id: str | None = None
    pricing_version: str | None = None
    cap_warning: CapCheckResult | None = None
    #: Caps with action `notify` that this call exceeds: the caller sees nothing of them, the events do.
    cap_notices: tuple[CapCheckResult, ...] = ()


class DeductionResult(Outcome):
    """`actual` is what the call cost, `amount` what left the balance for it, `allowance_consumed` what the allowance
    paid, `unbilled` what was not charged: `amount + allowance_consumed + unbilled = actual`.

    `overage` is what was charged beyond the reservation, `late` says that the reservation had expired, `suspect` that
    the cost was above `max_settle` and was cut there.
    """

    transaction_id: str | None = None
    reservation_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    amount: int = 0
    actual: int = 0
    allowance_consumed: int = 0
    unbilled: int = 0
    overage: int = 0
    balance_after: int = 0
    available: int = 0
    late: bool = False
    suspect: bool = False
    cap_warning: CapCheckResult | None = None
    cap_notices: tuple[CapCheckResult, ...] = ()


class ReleaseResult(Outcome):
    """`released` is true when this call ended the hold; else `state` (and `transaction_id`) tell what had."""

    reservation_id: str | None = None
    released: bool = False
    state: ReservationState | None = None
    amount: int = 0
    transaction_id: str | None = None
    available: int = 0


class RenewResult(Outcome):
    reservation_id: str | None = None
    expires_at: datetime | None = None


class Reservation(Row):
    """A reservation as it stands now. `account` numbers are not part of it: ask `get_available`.

    `grant_holds` is what of `held` expiring credits were held for, as it was admitted; `cap_warning` and `cap_notices`
    are the caps that it went over then and that let it pass, each with what its window had spent and held.
    """

    reservation_id: str
    user_id: str
    team_id: str | None = None
    amount: int
    held: int
    allowance_held: int = 0
    state: ReservationState
    operation_type: str
    model: str | None = None
    plan_id: str | None = None
    pricing_version: str | None = None
    overage: OveragePolicy = "debt"
    min_balance: int = 0
    max_settle: int = 0
    grace_seconds: int = 60
    transaction_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    grant_holds: tuple[GrantPart, ...] = ()
    cap_warning: CapCheckResult | None = None
    cap_notices: tuple[CapCheckResult, ...] = ()
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None


class ReservationPage(Row):
    """By account, the oldest of an account first. `next_cursor` continues the listing; `None` at its end.

    A page may have fewer reservations than were asked for, even none, and still a `next_cursor`.
    """

    reservations: tuple[Reservation, ...] = ()
    next_cursor: str | None = None


class ReapResult(Row):
    """The reservations that the reaper ended; `amount` is what they held of balance and allowance together."""

    reaped: int = 0
    amount: int = 0
    reservations: tuple[Reservation, ...] = ()
