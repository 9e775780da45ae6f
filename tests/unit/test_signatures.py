"""The published interface, to the letter: names, order and defaults of parameters, and what is abstract."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from ducto import models
from ducto.errors import NotSupportedError
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore

REQUIRED = inspect.Parameter.empty

#: Published: these positional parameters, in this order, with these defaults.
PUBLISHED: dict[str, dict[str, Any]] = {
    "setup": {"database_url": None},
    "get_balance": {"user_id": REQUIRED},
    "add_credits": {
        "user_id": REQUIRED,
        "amount": REQUIRED,
        "type": "adjustment",
        "metadata": None,
        "expires_at": None,
    },
    "reserve_credits": {
        "user_id": REQUIRED,
        "amount": REQUIRED,
        "operation_type": REQUIRED,
        "metadata": None,
        "min_balance": 5,
    },
    "deduct_credits": {
        "user_id": REQUIRED,
        "reservation_id": REQUIRED,
        "amount": REQUIRED,
        "idempotency_key": None,
        "metadata": None,
    },
    "refund_credits": {"transaction_id": REQUIRED, "amount": None, "reason": None, "metadata": None},
    "get_active_pricing": {},
    "set_active_pricing": {"config": REQUIRED, "label": None},
    "get_pricing_config": {"version": REQUIRED},
    "get_pricing_history": {},
    "activate_pricing": {"version": REQUIRED},
    "get_user_plan": {"user_id": REQUIRED},
    "set_user_plan": {"user_id": REQUIRED, "plan_id": REQUIRED},
    "check_allowance": {"user_id": REQUIRED},
    "increment_usage_window": {"user_id": REQUIRED, "plan_id": REQUIRED, "amount": REQUIRED},
    "check_spend_cap": {"user_id": REQUIRED, "model": None, "amount": None},
    "set_spend_cap": {"cap": REQUIRED},
    "sweep_expired_credits": {"dry_run": False},
    "spend_by_user": {"start": REQUIRED, "end": REQUIRED},
    "spend_by_model": {"start": REQUIRED, "end": REQUIRED},
    "top_users": {"limit": REQUIRED, "start": REQUIRED, "end": REQUIRED},
    "daily_spend": {"start": REQUIRED, "end": REQUIRED},
    "aggregate_stats": {"start": REQUIRED, "end": REQUIRED},
    "create_team": {"name": REQUIRED, "initial_balance": 0},
    "get_team_balance": {"team_id": REQUIRED},
    "add_team_member": {"team_id": REQUIRED, "user_id": REQUIRED, "role": "member", "spend_cap": None},
    "get_team_members": {"team_id": REQUIRED},
    "deduct_team": {"team_id": REQUIRED, "user_id": REQUIRED, "amount": REQUIRED, "metadata": None},
}

#: Keyword-only additions that callers rely on; each has a default, so that published calls go on working.
ADDED_KEYWORDS: dict[str, set[str]] = {
    "reserve_credits": {
        "idempotency_key",
        "ttl_seconds",
        "grace_seconds",
        "model",
        "team_id",
        "overage",
        "max_settle",
        "max_concurrent",
        "feature",
        "pricing_version",
        "fingerprint",
        "attempt_id",
    },
    "deduct_credits": {"usage", "estimated", "model", "pricing_version"},
    "deduct_team": {"idempotency_key", "usage", "estimated", "model", "pricing_version"},
    "charge_credits": {"idempotency_key", "force", "usage", "estimated", "model", "pricing_version"},
    "set_active_pricing": {"expected_version", "idempotency_key"},
    "adjust_credits": {"direction", "idempotency_key"},
    **{
        verb: {"idempotency_key"}
        for verb in (
            "add_credits",
            "refund_credits",
            "transfer_credits",
            "increment_usage_window",
            "create_team",
            "add_team_credits",
        )
    },
}

ADDED_METHODS = [
    "charge_credits",
    "adjust_credits",
    "transfer_credits",
    "list_plans",
    "set_member_cap",
    "delete_team",
    "list_events",
    "release_reservation",
    "renew_reservation",
    "get_reservation",
    "get_available",
    "list_transactions",
    "get_transaction",
    "remove_spend_cap",
    "list_spend_caps",
    "add_team_credits",
    "remove_team_member",
    "reap_expired_reservations",
    "verify",
    "ping",
    "aclose",
    "prune_reservations",
    "list_ledger",
    "list_reservations",
    "roll_up_spend",
]

#: Abstract are the published methods for setup, balances, active pricing, plans, cap check, refund, sweep, analytics
#: and teams; setting caps and the history of pricing have defaults.
ABSTRACT = set(PUBLISHED) - {"get_pricing_config", "get_pricing_history", "activate_pricing", "set_spend_cap"}

RESULTS = [
    "BalanceResult",
    "AddCreditsResult",
    "ReserveResult",
    "DeductionResult",
    "RefundResult",
    "SweepResult",
    "AllowanceResult",
    "CapCheckResult",
    "GetUserPlanResult",
    "SetUserPlanResult",
    "SpendCap",
    "CreateTeamResult",
    "TeamBalanceResult",
    "TeamMember",
    "AddTeamMemberResult",
    "TeamDeductionResult",
    "SpendByUserRow",
    "SpendByModelRow",
    "TopUserRow",
    "DailySpendRow",
    "AggregateStatsRow",
    "PricingConfigResult",
    "PricingConfigHistoryItem",
    "CreditMetadata",
    "SetupResult",
    "PricingConfigData",
]


def parameters(cls: type, method: str) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(cls, method)).parameters.values())[1:]


@pytest.mark.parametrize("cls", [CreditStore, MemoryStore])
@pytest.mark.parametrize("method", PUBLISHED)
def test_published_parameters_are_positional_in_order_with_their_defaults(cls: type, method: str) -> None:
    positional = {
        each.name: each.default for each in parameters(cls, method) if each.kind is each.POSITIONAL_OR_KEYWORD
    }
    assert list(positional.items()) == list(PUBLISHED[method].items())


@pytest.mark.parametrize("method", ADDED_KEYWORDS)
def test_added_keywords_are_there(method: str) -> None:
    keywords = {each.name for each in parameters(CreditStore, method) if each.kind is each.KEYWORD_ONLY}
    assert keywords >= ADDED_KEYWORDS[method]


@pytest.mark.parametrize("method", PUBLISHED)
def test_what_is_added_to_a_published_method_has_a_default(method: str) -> None:
    added = [each for each in parameters(CreditStore, method) if each.kind is not each.POSITIONAL_OR_KEYWORD]
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not REQUIRED for each in added)


@pytest.mark.parametrize("method", [*PUBLISHED, *ADDED_METHODS])
def test_every_method_is_async_and_the_memory_store_has_it_with_the_same_signature(method: str) -> None:
    assert inspect.iscoroutinefunction(getattr(CreditStore, method))
    own = getattr(MemoryStore, method)
    assert inspect.iscoroutinefunction(own)
    assert inspect.signature(own) == inspect.signature(getattr(CreditStore, method))
    if method != "aclose":  # The memory store opens nothing.
        assert own is not getattr(CreditStore, method), "the memory store does it itself"


def test_hearing_of_a_publish_is_not_async_and_optional() -> None:
    """It begins before it can be awaited that a connection is there, and a store that cannot hear says nothing."""
    assert not inspect.iscoroutinefunction(CreditStore.on_pricing_published)
    assert MemoryStore.on_pricing_published is CreditStore.on_pricing_published
    stop = MemoryStore().on_pricing_published(lambda version: None)
    stop()


def test_nothing_is_public_beyond_the_interface() -> None:
    public = {name for name in dir(MemoryStore) if not name.startswith("_")}
    assert public == {*PUBLISHED, *ADDED_METHODS, "on_pricing_published", "durable", "books_name"}


def test_what_a_store_says_of_its_books() -> None:
    assert (MemoryStore().durable, MemoryStore().books_name) == (False, None)


def test_abstract_are_exactly_the_methods_without_a_default() -> None:
    assert CreditStore.__abstractmethods__ == ABSTRACT


async def test_a_method_that_a_store_lacks_says_so_by_name() -> None:
    stubs = dict.fromkeys(ABSTRACT, lambda self: None)
    bare = type("BareStore", (CreditStore,), stubs)()
    for method in [*ADDED_METHODS, *(set(PUBLISHED) - ABSTRACT)]:
        if method == "aclose":
            await bare.aclose()
            continue
        required = {each.name: "x" for each in parameters(CreditStore, method) if each.default is REQUIRED}
        with pytest.raises(NotSupportedError, match=f"BareStore does not implement {method}") as caught:
            await getattr(bare, method)(**required)
        assert not caught.value.retryable


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_importable_from_the_published_path(name: str) -> None:
    assert getattr(importlib.import_module("ducto.interface.models"), name) is getattr(models, name)


def test_stores_are_importable_from_the_published_paths() -> None:
    assert importlib.import_module("ducto.interface.memory").MemoryStore is MemoryStore
    assert importlib.import_module("ducto.interface.base").CreditStore is CreditStore


FIELDS: dict[str, str] = {
    "BalanceResult": "user_id balance lifetime_purchased",
    "AvailableResult": "user_id balance held available",
    "AddCreditsResult": "transaction_id user_id amount new_balance lifetime_purchased error replayed",
    "ReserveResult": "reservation_id user_id team_id amount held balance available state expires_at cap_warning "
    "error replayed",
    "DeductionResult": "transaction_id reservation_id user_id amount actual allowance_consumed unbilled balance_after "
    "late cap_warning error replayed",
    "RefundResult": "transaction_id refunded_transaction_id user_id team_id amount allowance_restored balance_after "
    "error replayed",
    "SweepResult": "accounts grants amount dry_run",
    "AllowanceResult": "user_id plan_id allowance used held remaining period_start period_end",
    "CapCheckResult": "allowed action cap spent held resets_at",
    "SpendCap": "user_id cap_type limit action model",
    "GetUserPlanResult": "user_id plan_id name free_allowance features rate_overrides max_concurrent",
    "SetUserPlanResult": "error replayed",
    "CreateTeamResult": "team_id name balance error replayed",
    "TeamBalanceResult": "team_id name balance held available member_count",
    "TeamMember": "team_id user_id role spend_cap spent held joined_at",
    "AddTeamMemberResult": "error replayed",
    "TeamDeductionResult": "transaction_id team_id user_id amount balance_after error replayed",
    "SpendByUserRow": "user_id total_spend transaction_count refunded",
    "SpendByModelRow": "model total_spend transaction_count refunded",
    "DailySpendRow": "day total_spend transaction_count refunded",
    "TopUserRow": "user_id total_spend transaction_count refunded",
    "AggregateStatsRow": "total_spend active_users avg_daily_spend top_model top_user transaction_count refunded",
    "PricingConfigResult": "id version label config active created_at",
    "VerifyResult": "ok faults",
    "SetupResult": "success errors applied",
}


@pytest.mark.parametrize("name", FIELDS)
def test_results_have_the_fields_that_callers_rely_on(name: str) -> None:
    assert set(FIELDS[name].split()) <= set(getattr(models, name).model_fields)
