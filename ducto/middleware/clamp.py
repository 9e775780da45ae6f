"""Clamp to afford: lower a request's output limit to what its caller can pay, instead of refusing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware.identity import Identity
from ducto.middleware.providers import CallRequest
from ducto.usage import UsageMetrics

__all__ = ["ClampToAfford", "affordable_output"]


@dataclass(frozen=True, slots=True)
class ClampToAfford:
    """Lower the output limit where the balance, or a cap, does not allow the whole call.

    Below `floor_tokens` of output for each choice an answer is worth nothing, so the call is refused.
    """

    floor_tokens: int = 16

    def __post_init__(self) -> None:
        if type(self.floor_tokens) is not int or self.floor_tokens < 1:
            raise ConfigError(f"floor_tokens must be at least 1, not {self.floor_tokens!r}.")


async def affordable_output(
    manager: CreditManager,
    identity: Identity,
    request: CallRequest,
    *,
    worst_case: Callable[[CallRequest], UsageMetrics],
    wanted_tokens: int,
    floor_tokens: int,
) -> int | None:
    """The largest output limit below `wanted_tokens` that the caller can pay now; `None` if it is below the floor.

    It promises nothing: another call may take the credits meanwhile. Raises `PricingError` and `StoreError`.
    """
    if wanted_tokens <= floor_tokens:
        return None
    credits_left = await manager.affordable(identity.user_id, team_id=identity.team_id, model=request.model)
    engine = await manager.pricing()
    plan = (await manager.get_user_plan(identity.user_id)).definition()

    def fits(tokens: int) -> bool:
        return engine.estimate(worst_case(replace(request, output_limit=tokens)), plan) <= credits_left

    if not fits(floor_tokens):
        return None
    fitting, too_many = floor_tokens, wanted_tokens
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if fits(middle):
            fitting = middle
        else:
            too_many = middle
    return fitting
