"""Which entry of the config prices a model."""

from __future__ import annotations

from typing import Any

import pytest

from ducto.errors import PlanNotFoundError, PricingConfigError, UnknownModelError
from ducto.models.pricing import PlanDefinition
from ducto.pricing import PricingEngine, parse_pricing


def engine(*models: str, aliases: dict[str, str] | None = None, **plans: list[str]) -> PricingEngine:
    return PricingEngine(
        parse_pricing(
            {
                "models": dict.fromkeys(models, "1"),
                "aliases": aliases or {},
                "plans": {plan: {"rate_overrides": dict.fromkeys(names, "2")} for plan, names in plans.items()},
            }
        )
    )


@pytest.mark.parametrize(
    ("models", "name", "expected"),
    [
        (["gpt-4o", "gpt-4*", "_default"], "gpt-4o", "gpt-4o"),
        (["gpt-4o", "openai/gpt-4o"], "openai/gpt-4o", "openai/gpt-4o"),
        (["gpt-4o", "openai/*"], "openai/gpt-4o", "gpt-4o"),
        (["gpt-4o", "openai/gpt-4o"], "openrouter/openai/gpt-4o", "openai/gpt-4o"),
        (["gpt-4o"], "a/b/gpt-4o", "gpt-4o"),
        (["gpt-4*", "gpt-4o-mini*"], "gpt-4o-mini-2024", "gpt-4o-mini*"),
        (["gpt-4*", "gpt-4o-mini*"], "gpt-4-turbo", "gpt-4*"),
        (["gpt-4*"], "openai/gpt-4-turbo", "gpt-4*"),
        (["openai/*", "gpt-4-turbo*"], "openai/gpt-4-turbo-x", "openai/*"),
        (["b?", "?a", "_default"], "ba", "?a"),
        (["gpt-?"], "gpt-4", "gpt-?"),
        (["gpt-4*", "_default"], "GPT-4", "_default"),
        (["gpt-?", "_default"], "gpt-44", "_default"),
        (["a[1]*", "_default"], "a[1]x", "a[1]*"),
        (["a[1]*", "_default"], "a1x", "_default"),
        (["a.b*", "_default"], "axb", "_default"),
        (["x", "_default"], "n" * 100_000, "_default"),
        (["*", "_default"], "line\nbreak", "*"),
    ],
)
def test_order(models: list[str], name: str, expected: str) -> None:
    assert engine(*models).resolve(name) == expected


def test_alias_goes_before_prefix_and_pattern_and_is_resolved_further() -> None:
    prices = engine(
        "gpt-4o",
        "claude-*",
        "fast*",
        aliases={"fast": "quick", "quick": "openai/gpt-4o", "smart": "claude-x"},
    )
    assert prices.resolve("fast") == "gpt-4o"
    assert prices.resolve("smart") == "claude-*"
    assert prices.resolve("proxy/smart") == "claude-*"
    assert prices.resolve("faster") == "fast*"


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"a": "a"}, r"^aliases\.a: leads back"),
        ({"a": "b", "b": "c", "c": "b"}, "leads back to itself"),
        ({"a": "openai/a"}, "leads back to itself"),
        ({"a": "gpt-4p"}, r"^aliases\.a: no model has the name 'gpt-4p' \(did you mean 'gpt-4o'\?\)"),
    ],
)
def test_faulty_alias(aliases: dict[str, str], message: str) -> None:
    with pytest.raises(PricingConfigError, match=message):
        engine("gpt-4o", "_default", aliases=aliases)


def test_alias_to_a_name_with_prefix_that_is_a_model_is_no_loop() -> None:
    assert engine("openai/gpt-4o", aliases={"gpt-4o": "openai/gpt-4o"}).resolve("gpt-4o") == "openai/gpt-4o"


def test_unknown_model_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'gpt-4o-mini'") as caught:
        engine("gpt-4o-mini", "claude").resolve("gpt-4o-mni")
    assert caught.value.model == "gpt-4o-mni"
    with pytest.raises(UnknownModelError) as long:
        engine("gpt").resolve("x" * 100_000)
    assert len(str(long.value)) < 500


def test_overrides_of_a_plan_come_first_in_the_same_order() -> None:
    prices = engine("gpt-4o", "gpt-4*", "o3", aliases={"fast": "gpt-4o"}, pro=["gpt-4*"], all=["_default"])
    assert prices.resolve("gpt-4o") == "gpt-4o"
    assert prices.resolve("gpt-4o", "pro") == "gpt-4*"
    assert prices.resolve("fast", "pro") == "gpt-4*"
    assert prices.resolve("openai/gpt-4o", "pro") == "gpt-4*"
    assert prices.resolve("o3", "pro") == "o3"
    assert prices.resolve("gpt-4o", "all") == "_default"
    assert prices.resolve("never-heard-of", "all") == "_default"


def test_plan_must_exist_but_a_definition_that_was_dropped_still_prices() -> None:
    prices = engine("gpt-4o", pro=["gpt-4o"])
    with pytest.raises(PlanNotFoundError, match="did you mean 'pro'"):
        prices.resolve("gpt-4o", "prp")
    dropped = PlanDefinition(id="old", rate_overrides={"special": "3"})
    assert prices.resolve("special", dropped) == "special"
    # The same id with another content is another definition.
    changed = PlanDefinition(id="old", rate_overrides={"other": "3"})
    assert prices.resolve("other", changed) == "other"
    with pytest.raises(UnknownModelError):
        prices.resolve("special", changed)
    assert prices.resolve("other", PlanDefinition(id="pro", rate_overrides={"other": "3"})) == "other"


def test_many_names_from_clients_are_all_answered() -> None:
    prices = engine("a*", "b*")
    for index in range(9_000):
        assert prices.resolve(f"a{index}") == "a*"
        assert prices.resolve(f"b{index % 7}") == "b*"


def test_max_output_tokens() -> None:
    def table(**more: Any) -> dict[str, Any]:
        return {"input": 1, "output": 1, **more}

    prices = PricingEngine(
        parse_pricing(
            {
                "models": {"m": table(max_output_tokens=4096), "n": "1"},
                "plans": {
                    "p": {"rate_overrides": {"m": table()}},
                    "q": {"rate_overrides": {"m": table(max_output_tokens=9)}},
                },
            }
        )
    )
    assert prices.max_output_tokens("x/m") == 4096
    assert prices.max_output_tokens("n") is None
    assert prices.max_output_tokens("m", "p") == 4096
    assert prices.max_output_tokens("m", "q") == 9
    with pytest.raises(UnknownModelError):
        prices.max_output_tokens("unknown")
