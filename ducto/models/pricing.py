"""The pricing config as it is written, stored and published. It holds values only: `ducto.pricing` gives
them meaning.

A price is a `Decimal` and never passes through binary floating point: an `int`, a `str` or a `Decimal` is
taken as it is, and a float (what a YAML or JSON reader makes of `2.5`) becomes the decimal that its shortest
`repr` spells, `Decimal("2.5")`, which is what the author typed. A truth value, NaN, an infinity and a
negative price are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from ducto.usage import MAX_AMOUNT

__all__ = [
    "ModelPrice",
    "PlanDefinition",
    "Price",
    "PricingConfigData",
    "RateTable",
    "RateTier",
    "RateVariant",
    "Rates",
]

#: Bounds on a price, so that exact arithmetic with it stays small.
MAX_PRICE = Decimal(10) ** 15
MAX_PRICE_DECIMALS = 30

#: What pydantic puts into the location of an error for the two kinds of a model's price.
EXPRESSION_TAG = "(expression)"
RATE_TABLE_TAG = "(rate table)"


def _exact_price(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError("a price is a number, or a number in quotes")  # noqa: TRY004 - pydantic wants ValueError
    try:
        price = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a number") from None
    if not price.is_finite() or price < 0:
        raise ValueError("a price is a finite number of at least 0")
    if price > MAX_PRICE:
        raise ValueError(f"a price is at most {MAX_PRICE:f}")
    exponent = price.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_PRICE_DECIMALS:
        raise ValueError(f"a price has at most {MAX_PRICE_DECIMALS} decimal places")
    return price


def _factor(value: object) -> Decimal:
    factor = _exact_price(value)
    if factor == 0:
        raise ValueError("markup is a factor and must be above 0; 1 means no markup")
    return factor


Price = Annotated[Decimal, BeforeValidator(_exact_price)]
Markup = Annotated[Decimal, BeforeValidator(_factor)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Credits = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]


class _Value(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Rates(_Value):
    """Prices of the token buckets per 1,000,000 tokens, of whole units, and of the provider's own searches.

    `None` means "not stated": a bucket then folds into its parent. A price of 0 is stated, and means free.
    """

    input: Price | None = None
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    input_audio: Price | None = None
    input_image: Price | None = None
    output: Price | None = None
    reasoning: Price | None = None
    output_audio: Price | None = None
    output_image: Price | None = None

    per_request: Price | None = None
    per_image: Price | None = None
    per_audio_minute: Price | None = None
    per_1m_characters: Price | None = None
    per_web_search: Price | None = None
    per_search_query: Price | None = None


class RateTier(Rates):
    """Rates for a call whose whole input, cache included, is strictly above `above` tokens.

    They price every token of the call, not only those past the threshold. What a tier does not state it
    takes from the table that it stands in.
    """

    above: Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]


class RateVariant(Rates):
    """Rates for calls that were served in another way, such as `service_tier=flex`. The rest comes from the
    table.
    """

    tiers: tuple[RateTier, ...] = ()


class RateTable(Rates):
    """The prices of one model. `unit` says in what: `usd` is turned into credits by `credits_per_usd` and
    `markup`.

    A key of `variants` is `service_tier=VALUE`, `speed=VALUE` or both with a comma between; all of it must
    match. `max_output_tokens` is the most that the model can answer with: the worst case where a request
    sets no limit.
    """

    unit: Literal["credits", "usd"] = "credits"
    max_output_tokens: Annotated[int, Field(strict=True, ge=1, le=MAX_AMOUNT)] | None = None
    tiers: tuple[RateTier, ...] = ()
    variants: dict[str, RateVariant] = Field(default_factory=dict)


def _price_tag(value: object) -> str:
    return RATE_TABLE_TAG if isinstance(value, (Mapping, RateTable)) else EXPRESSION_TAG


#: A model's price: an expression in credits, or a rate table.
ModelPrice = Annotated[
    Annotated[str, Tag(EXPRESSION_TAG)] | Annotated[RateTable, Tag(RATE_TABLE_TAG)],
    Discriminator(_price_tag),
]


class PlanDefinition(_Value):
    """What a plan gives: a monthly allowance in credits, features, its own rates, and a limit of concurrent
    calls.

    `rate_overrides` are looked up before the config's `models`, in the same way. `per_operation` is this
    plan's own price in credits for a fixed job, in place of the config's `fixed`. `name` is the id where it
    is not given.
    """

    id: Name
    name: str = ""
    free_allowance: Credits = 0
    features: tuple[str, ...] = ()
    rate_overrides: dict[Name, ModelPrice] = Field(default_factory=dict)
    max_concurrent: Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)] | None = None
    per_operation: dict[Name, Credits] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_from_id(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not data.get("name"):
            return {**data, "name": data.get("id", "")}
        return data


class PricingConfigData(_Value):
    """A whole pricing config. Amounts are in credits.

    `tools`, `search` and `cache` are named expressions that are added to the model's price; `fixed` prices
    jobs by name. `min_balance` is the floor that a reservation must leave, `signup_bonus` is booked once for
    a new user. Whether the texts mean something is checked when the config is compiled, not here.
    """

    version: Literal[1] = 1
    models: dict[Name, ModelPrice] = Field(default_factory=dict)
    tools: dict[Name, str] = Field(default_factory=dict)
    search: dict[Name, str] = Field(default_factory=dict)
    cache: dict[Name, str] = Field(default_factory=dict)
    fixed: dict[Name, Credits] = Field(default_factory=dict)
    min_balance: Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)] = 5
    plans: dict[Name, PlanDefinition] = Field(default_factory=dict)
    default_plan: str | None = None
    signup_bonus: Credits = 0
    credits_per_usd: Annotated[int, Field(strict=True, ge=1, le=MAX_AMOUNT)] = 1_000_000
    markup: Markup = Decimal(1)
    rounding: Literal["up", "half_up"] = "up"
    aliases: dict[Name, Name] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _plan_ids_from_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        plans = data.get("plans")
        if not isinstance(plans, Mapping):
            return dict(data)
        filled = {key: {"id": key, **plan} if isinstance(plan, Mapping) else plan for key, plan in plans.items()}
        return {**data, "plans": filled}

    @model_validator(mode="after")
    def _plans_agree(self) -> PricingConfigData:
        for key, plan in self.plans.items():
            if plan.id != key:
                raise ValueError(f"plans.{key}.id is {plan.id!r}; write {key!r} or leave the id out")
        if self.default_plan is not None and self.default_plan not in self.plans:
            raise ValueError(f"default_plan {self.default_plan!r} is not one of the plans")
        return self
