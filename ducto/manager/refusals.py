"""From a store's answer to the exception that the manager raises."""

from __future__ import annotations

from typing import TypeVar

from ducto.errors import error_for
from ducto.models import Outcome

__all__ = ["accepted"]

R = TypeVar("R", bound=Outcome)

#: What the user can do about a refusal, where the store sent no text of its own.
_ADVICE = {
    "insufficient_credits": "there are not enough credits; add credits or ask for less",
    "cap_reached": "a spend cap is reached; wait until it resets or raise it",
    "member_cap_reached": "the member's cap in the team is reached; raise it or wait until it resets",
    "concurrency_limit": "too many calls are open; retry when one of them has ended",
    "feature_not_entitled": "the user's plan does not have this feature; assign a plan that has it",
    "not_a_member": "the user is not a member of the team; add the member first",
    "reservation_not_found": "this user has no such reservation; check both ids",
    "reservation_released": "the reservation was released; charge without it if work was done",
    "reservation_expired": "the reservation has expired; charge without it if work was done",
    "already_settled": "the reservation was settled before; look the transaction up",
    "exceeds_reservation": "the cost is above what was reserved and the policy is `reject`",
    "idempotency_mismatch": "the key was used with other arguments; use a new key for another operation",
    "overflow": "a balance would leave the range of 2^53-1 credits",
}


def accepted(result: R, verb: str) -> R:
    """`result` itself if it is no refusal. Raises the typed error of its code otherwise."""
    if result.error is None:
        return result
    advice = _ADVICE.get(result.error, "see the code and its details")
    details = result.details.model_dump(exclude_none=True) if result.details is not None else {}
    raise error_for(result.error, result.message or f"{verb} was refused ({result.error}): {advice}.", **details)
