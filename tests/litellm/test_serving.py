"""Who served a call, and by which name it is priced."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ducto.middleware.litellm.pricing import credits_of, first_priced, name_to_reserve
from ducto.middleware.litellm.serving import Served, dollars, served, served_as_noted
from ducto.pricing import PricingEngine, parse_pricing
from tests.litellm.support import PRICING

ENGINE = PricingEngine(parse_pricing({**PRICING, "markup": "1.5", "credits_per_usd": 1_000}))
WITH_DEFAULT = PricingEngine(parse_pricing({**PRICING, "models": {**PRICING["models"], "_default": "1"}}))


class Deployment(SimpleNamespace):
    """As LiteLLM's, a pydantic model."""

    def model_dump(self) -> dict[str, Any]:
        return vars(self)


DEPLOYED = {"litellm_params": {"model": "azure/mine"}, "model_info": {"base_model": "gpt-4o"}}
NAMES = ("gpt-4o", "azure/mine", "mine")


def headers(group: str, fallbacks: object) -> dict[str, Any]:
    return {"x-litellm-model-group": group, "x-litellm-attempted-fallbacks": fallbacks}


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ({}, Served(models=NAMES)),
        (None, Served(models=NAMES)),
        ({"additional_headers": headers("m", 0)}, Served(models=NAMES)),
        ({"additional_headers": headers("m", "0")}, Served(models=NAMES)),
        ({"additional_headers": headers("backup", 1)}, Served(fallback_group="backup", models=NAMES)),
        ({"cache_hit": True, "response_cost": 0.5}, Served(models=NAMES, cache_hit=True, cost_usd=0.5)),
        ({"cache_hit": "yes", "response_cost": "0.5"}, Served(models=NAMES)),
    ],
)
def test_served(hidden: dict[str, Any] | None, expected: Served) -> None:
    data = {"deployment": Deployment(**DEPLOYED)}
    assert served(SimpleNamespace(_hidden_params=hidden), data) == expected
    assert served({"_hidden_params": hidden}, data) == expected


def test_deployment_that_a_client_sent_is_none() -> None:
    assert served({}, {"deployment": DEPLOYED}) == Served()


def test_served_as_the_router_noted() -> None:
    notes = {"model_group": "backup", "attempted_fallbacks": 1, "deployment": "openai/gpt-4o", "model_info": {}}
    names = ("openai/gpt-4o", "gpt-4o")
    assert served_as_noted(notes, cost_usd=0.5) == Served(fallback_group="backup", models=names, cost_usd=0.5)
    assert served_as_noted({**notes, "attempted_fallbacks": 0}) == Served(models=names)
    assert served_as_noted({}) == Served()


@pytest.mark.parametrize(
    ("public", "deployments", "expected"),
    [
        ("m", [("backup",)], "m"),
        ("unpriced", [("backup",)], "backup"),
        ("unpriced", [("no", "claude"), ("backup",), ("m",)], "backup"),
        ("unpriced", [("no",)], "unpriced"),
        (None, [("m",)], None),
    ],
)
def test_name_to_reserve(public: str | None, deployments: list[tuple[str, ...]], expected: str | None) -> None:
    assert name_to_reserve(ENGINE, public, deployments) == expected


def test_price_for_everything_else_comes_after_the_deployments() -> None:
    assert name_to_reserve(WITH_DEFAULT, "unpriced", [("backup",)]) == "backup"
    assert name_to_reserve(WITH_DEFAULT, "unpriced", [("no",)]) == "unpriced"
    assert first_priced(WITH_DEFAULT, ["no", "m"]) == "m"


def test_dollars_are_exact_and_rounded_once() -> None:
    cost = dollars(7.2e-06)
    assert cost == Decimal("0.0000072")
    assert credits_of(ENGINE, Decimal("0.01")) == 15
    assert credits_of(ENGINE, cost) == 1
    assert [dollars(none) for none in (None, 0.0, -1.0, float("nan"), float("inf"), True)] == [None] * 6
