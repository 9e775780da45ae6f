"""What crosses the store line: frozen, tolerant of newer stores, and the same after a trip through JSON."""

from __future__ import annotations

import copy
import inspect
import pickle
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, ValidationError

from ducto import models
from ducto.models import (
    CapCheckResult,
    CreditMetadata,
    DeductionResult,
    Outcome,
    PricingConfigData,
    RefusalDetails,
    ReserveResult,
    SpendCap,
    Transaction,
)
from ducto.models.base import Row, unvalidated
from ducto.stores.memory import MemoryStore
from ducto.usage import MAX_AMOUNT, UsageMetrics

NOW = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
CAP = SpendCap(user_id="ann", cap_type="daily", limit=10, action="warn", model="small")

EXAMPLES: list[BaseModel] = [
    CAP,
    ReserveResult(
        reservation_id="r",
        user_id="ann",
        amount=MAX_AMOUNT,
        held=3,
        state="active",
        expires_at=NOW,
        cap_warning=CapCheckResult(allowed=True, action="warn", cap=CAP, spent=9, resets_at=NOW),
        cap_notices=(CapCheckResult(allowed=True),),
    ),
    DeductionResult(error="cap_reached", message="no", details=RefusalDetails(limit=1, resets_at=NOW, mismatch=("a",))),
    Transaction(
        transaction_id="t",
        sequence=1,
        type="deduction",
        amount=-5,
        balance_after=-MAX_AMOUNT,
        usage=UsageMetrics(model="m", input_tokens=3),
        metadata={"deep": [1, {"b": None}]},
        booked_at=NOW,
        created_at=NOW,
    ),
    PricingConfigData.model_validate(
        {"models": {"m": {"unit": "usd", "input": 2.5}, "n": "input_tokens * 2"}, "plans": {"p": {"free_allowance": 1}}}
    ),
    CreditMetadata.model_validate({"source": "api", "tags": {"a": "b"}, "extra": [1, 2]}),
]

PUBLIC = [each for each in vars(models).values() if inspect.isclass(each) and issubclass(each, BaseModel)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: type(each).__name__)
def test_json_and_back_is_the_same(example: BaseModel) -> None:
    again = type(example).model_validate_json(example.model_dump_json())
    assert again == example
    assert again.model_dump_json() == example.model_dump_json()


@pytest.mark.parametrize("model", PUBLIC, ids=lambda each: each.__name__)
def test_every_model_is_frozen(model: type[BaseModel]) -> None:
    assert model.model_config.get("frozen") is True


def test_a_frozen_model_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ReserveResult(amount=1).amount = 2  # type: ignore[misc]


@pytest.mark.parametrize("model", [each for each in PUBLIC if issubclass(each, Row)], ids=lambda each: each.__name__)
def test_results_ignore_what_a_newer_store_adds(model: type[BaseModel]) -> None:
    assert model.model_config.get("extra") == "ignore"


def test_an_unknown_field_is_dropped() -> None:
    assert "novelty" not in Outcome.model_validate({"replayed": True, "novelty": 1}).model_dump()


def test_what_is_made_without_validation_is_the_same() -> None:
    made, again = unvalidated(ReserveResult)(reservation_id="r", amount=3), ReserveResult(reservation_id="r", amount=3)
    assert made == again
    assert repr(made) == repr(again)
    assert made.model_dump_json() == again.model_dump_json()
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == again
    changed = made.model_copy(update={"held": 1})
    assert (changed.held, made.held) == (1, 0)
    with pytest.raises(ValidationError, match="frozen"):
        made.amount = 2  # type: ignore[misc]


def test_a_model_that_needs_values_is_not_made_without_validation() -> None:
    with pytest.raises(AssertionError, match="SpendCap"):
        unvalidated(SpendCap)  # type: ignore[type-var]


async def test_what_the_memory_store_answers_would_pass_validation() -> None:
    async with MemoryStore() as store:
        await store.add_credits("ann", 1_000)
        await store.set_spend_cap(CAP)
        await store.set_spend_cap(CAP.model_copy(update={"cap_type": "monthly", "action": "notify"}))
        held = await store.reserve_credits("ann", 100, "chat", model="small", idempotency_key="a")
        assert held.cap_warning is not None
        assert held.cap_notices
        spent = await store.deduct_credits("ann", str(held.reservation_id), 120)
        assert spent.cap_notices
        charged = await store.charge_credits("ann", 5, model="small")
        for answer in (held, spent, charged):
            plain = {name: getattr(answer, name) for name in type(answer).model_fields}
            assert type(answer).model_validate(plain, strict=True) == answer
            assert type(answer).model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize("limit", [-1, MAX_AMOUNT + 1, 1.0, True, "5", float("nan"), None])
def test_a_cap_takes_whole_amounts_only(limit: object) -> None:
    with pytest.raises(ValidationError):
        SpendCap.model_validate({"user_id": "ann", "cap_type": "daily", "limit": limit})


def test_a_cap_refuses_unknown_fields_and_words() -> None:
    good = {"user_id": "ann", "cap_type": "daily", "limit": 1}
    for bad in ({"cap_type": "weekly"}, {"action": "shout"}, {"models": "x"}):
        with pytest.raises(ValidationError):
            SpendCap.model_validate({**good, **bad})


@pytest.mark.parametrize("count", [-1, 1.5, True, "3", float("nan"), MAX_AMOUNT + 1])
def test_usage_takes_whole_counts_only(count: object) -> None:
    with pytest.raises(ValidationError):
        UsageMetrics.model_validate({"input_tokens": count})


def test_metadata_keeps_extras_and_drops_what_is_not_set() -> None:
    assert CreditMetadata.model_validate({"source": "api", "mine": 1}).as_dict() == {"source": "api", "mine": 1}


def test_ok_is_the_absence_of_a_code() -> None:
    assert Outcome().ok
    assert not Outcome(error="overflow").ok
