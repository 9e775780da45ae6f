"""What all results have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from ducto.usage import MAX_AMOUNT

__all__ = ["Amount", "CreditMetadata", "Metadata", "Outcome", "RefusalDetails", "Row", "SignedAmount", "unvalidated"]

#: Credits that move or are limited: a whole number from 0 to 2^53-1, never a bool, a float or a string.
Amount = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]
#: A balance or a ledger amount: it may be negative (debt, a debit).
SignedAmount = Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)]


class Row(BaseModel):
    """A value read from a store. Unknown fields are ignored, so that an older client reads a newer store."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class RefusalDetails(Row):
    """The numbers of a refusal; which ones are set depends on its code."""

    #: insufficient_credits: what was asked of the balance, and what there was.
    required: int | None = None
    available: int | None = None
    balance: int | None = None
    min_balance: int | None = None
    #: cap_reached, member_cap_reached, over_refund, exceeds_reservation
    limit: int | None = None
    spent: int | None = None
    held: int | None = None
    cap_type: str | None = None
    model: str | None = None
    resets_at: datetime | None = None
    #: concurrency_limit
    active: int | None = None
    max_concurrent: int | None = None
    #: feature_not_entitled
    feature: str | None = None
    plan_id: str | None = None
    #: idempotency_mismatch: the fields that differ from the first call with the key
    mismatch: tuple[str, ...] | None = None
    #: already_settled, already_refunded, reservation_*: what the caller may look up instead
    transaction_id: str | None = None
    reservation_id: str | None = None


class Outcome(Row):
    """The answer of a verb that can refuse or replay.

    `error` is `None` on success, else a code of `ducto.errors`; nothing was written then. `replayed` says that the
    call had been answered before under its key: the fields are those of the first answer, nothing was written now.
    """

    error: str | None = None
    message: str | None = None
    details: RefusalDetails | None = None
    replayed: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None


Arguments = ParamSpec("Arguments")
Made = TypeVar("Made", bound=Row)


def unvalidated(model: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """The constructor of `model` without validation, in half of its time and of its memory.

    For values that the ledger has made itself, of a model whose fields all have plain defaults. What it makes is equal
    to what the constructor makes; only, all of its fields count as set, and the set of their names is one for all.
    """
    made_by = cast(type[Made], model)
    fields = made_by.model_fields
    assert not any(field.is_required() or field.default_factory for field in fields.values()), made_by
    defaults = {name: field.default for name, field in fields.items()}
    names = set(fields)
    new = object.__new__
    set_values, set_names, set_extra, set_private = (
        BaseModel.__dict__[slot].__set__
        for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
    )

    def make(*positional: Arguments.args, **values: Arguments.kwargs) -> Made:
        made = new(made_by)
        set_values(made, {**defaults, **values})
        set_names(made, names)
        set_extra(made, None)
        set_private(made, None)
        return made

    return make


class CreditMetadata(BaseModel):
    """What a caller may note on a movement. Plain data: no money rule ever reads it. Extra fields are kept."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", frozen=True)

    request_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    source: str | None = None
    description: str | None = None
    tags: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields that were set, extras included."""
        return self.model_dump(mode="json", exclude_none=True)


#: How callers may give metadata.
Metadata = CreditMetadata | Mapping[str, Any] | None
