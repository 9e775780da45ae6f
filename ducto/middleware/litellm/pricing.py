"""By which name of the pricing config a call is priced, and turning dollars into credits by that config."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from ducto.errors import UnknownModelError
from ducto.models.pricing import PricingConfigData, RateTable
from ducto.pricing.engine import PricingEngine
from ducto.pricing.resolution import DEFAULT
from ducto.usage import UsageMetrics

__all__ = ["credits_of", "first_priced", "name_to_reserve", "require_price"]

#: A large call, by which the dearest of several models is found.
_PROBE = UsageMetrics(input_tokens=1_000_000, output_tokens=1_000_000)


def first_priced(engine: PricingEngine, names: Iterable[str]) -> str | None:
    """The first name that has a price of its own; the price for everything else is none."""
    return next((name for name in names if _is_priced(engine, name)), None)


def name_to_reserve(engine: PricingEngine, public_name: str | None, deployments: Iterable[Iterable[str]]) -> str | None:
    """The public name where it is priced, else the dearest of the models of its deployments, else the public name."""
    if public_name is None or _is_priced(engine, public_name):
        return public_name
    priced = [name for names in deployments if (name := first_priced(engine, names)) is not None]
    return max(priced, key=lambda name: engine.estimate(_PROBE.model_copy(update={"model": name})), default=public_name)


def require_price(engine: PricingEngine, public_name: str, deployments: Iterable[Iterable[str]]) -> None:
    """Raises `UnknownModelError` unless a call that this model serves has a price."""
    name = name_to_reserve(engine, public_name, deployments)
    engine.resolve(public_name if name is None else name)


def credits_of(engine: PricingEngine, cost_usd: Decimal) -> int:
    """A cost in dollars as the config would price it: by its `credits_per_usd`, `markup` and `rounding`."""
    config = PricingConfigData(
        models={"cost": RateTable(unit="usd", per_request=cost_usd)},
        credits_per_usd=engine.config.credits_per_usd,
        markup=engine.config.markup,
        rounding=engine.config.rounding,
    )
    return PricingEngine(config).calculate(UsageMetrics(model="cost")).total


def _is_priced(engine: PricingEngine, name: str) -> bool:
    try:
        return engine.resolve(name) != DEFAULT
    except UnknownModelError:
        return False
