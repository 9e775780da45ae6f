"""Prices imported from genai-prices cost what that library says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers

from ducto.errors import ConfigError, PricingConfigError, UnknownModelError
from ducto.models.pricing import RateTable
from ducto.pricing import PricingEngine
from ducto.pricing.catalogue import ImportedPrices, import_prices
from ducto.pricing.resolution import ModelNames
from ducto.usage import UsageMetrics
from tests.pricing.catalogue_usages import USAGES, credits_of, input_total, output_total, searches_of, usage_for

DAY = date(2026, 11, 1)
NOON = datetime.combine(DAY, time(12), UTC)
PROVIDERS = {provider.id for provider in providers}


@pytest.fixture(scope="module")
def imported() -> ImportedPrices:
    return import_prices("genai-prices", as_of=DAY)


@pytest.fixture(scope="module")
def engine(imported: ImportedPrices) -> PricingEngine:
    return PricingEngine(imported.config)


def theirs(usage: dict[str, int]) -> Usage:
    """Their counts overlap: a total of each side, and what of it is special."""
    writes = usage.get("cache_write_1h_tokens", 0)
    return Usage(
        input_tokens=input_total(usage),
        output_tokens=output_total(usage),
        cache_read_tokens=usage.get("cache_read_tokens", 0),
        cache_write_tokens=usage.get("cache_write_tokens", 0) + writes,
        cache_write_1h_tokens=writes,
        input_audio_tokens=usage.get("input_audio_tokens", 0),
        output_audio_tokens=usage.get("output_audio_tokens", 0),
        output_reasoning_tokens=usage.get("reasoning_tokens", 0),
        cache_audio_read_tokens=0,
        cache_image_read_tokens=0,
        web_searches=searches_of(usage),
    )


def their_credits(name: str, usage: Usage, context: dict[str, str] | None = None) -> int | None:
    """Their price for a name as a config has it; None where they know no such model."""
    provider, _, rest = name.partition("/")
    asked: list[dict[str, Any]] = [{"model_ref": name}]
    if provider in PROVIDERS:
        asked.insert(0, {"model_ref": rest, "provider_id": provider})
    for arguments in asked:
        try:
            price = calc_price(usage, genai_request_timestamp=NOON, price_context=context, **arguments)
        except LookupError:
            continue
        return credits_of(price.total_price)
    return None


def exact_names(imported: ImportedPrices) -> Iterator[tuple[str, RateTable]]:
    models = imported.config.models
    for name in (*models, *imported.config.aliases):
        table = models[imported.config.aliases.get(name, name)]
        assert isinstance(table, RateTable)
        if not set("*?") & set(name):
            yield name, table


def test_every_model_costs_what_the_library_says(imported: ImportedPrices, engine: PricingEngine) -> None:
    names = list(exact_names(imported))
    assert len(names) > 2_000
    noted = {note.model for note in imported.notes if "not imported: web_searches" in note.reason}
    noted |= {alias for alias, name in imported.config.aliases.items() if name in noted}
    wrong = []
    for name, table in names:
        for kind, usage in USAGES.items():
            counts = usage_for(table, usage)
            ours = engine.calculate(UsageMetrics(model=name, **counts)).total
            if kind == "searched" and name in noted:  # Not imported, and said so.
                continue
            if ours != (expected := their_credits(name, theirs(counts))):
                wrong.append((name, kind, ours, expected))
    assert wrong == []


def test_every_variant_costs_what_the_library_says(imported: ImportedPrices, engine: PricingEngine) -> None:
    served = [
        (name, dict(part.split("=") for part in key.split(",")))
        for name, table in exact_names(imported)
        for key in table.variants
    ]
    assert {condition for _, context in served for condition in context} == {"service_tier", "speed"}
    tables = dict(exact_names(imported))
    for name, context in served:
        for kind, usage in USAGES.items():
            counts = usage_for(tables[name], usage)
            ours = engine.calculate(UsageMetrics(model=name, **counts, **context)).total
            assert ours == their_credits(name, theirs(counts), context), (name, context, kind)


def test_audio_and_requests_are_priced_by_their_own_units(engine: PricingEngine) -> None:
    minute = UsageMetrics(model="whisper-1", audio_milliseconds=60_001)
    price = calc_price(Usage(audio_seconds=Decimal("60.001"), input_audio_seconds=Decimal("60.001")), "whisper-1")
    assert engine.calculate(minute).total == credits_of(price.total_price) == 6_001
    characters = UsageMetrics(model="tts-1", input_characters=1_001)
    assert engine.calculate(characters).total == 15_015


def names_in_the_data() -> set[str]:
    """Every text in every rule, and dated forms of it."""
    found: set[str] = set()
    pending: list[Any] = [model.match for provider in providers for model in provider.models]
    while pending:
        for value in vars(pending.pop()).values():
            pending += value if isinstance(value, list) else ()
            if isinstance(value, str) and not set("^\\*?") & set(value):
                found.add(value)
    found |= {model.id for provider in providers for model in provider.models}
    return {name + ending for name in found for ending in ("", "-20260501", "-2026-05-01", "-turbo", "@20260501")}


def test_a_name_never_finds_the_price_of_another_model(imported: ImportedPrices, engine: PricingEngine) -> None:
    """Also of names that the library takes for a model that is not imported, or for none."""
    usage = {"input_tokens": 1_000_000}
    names = ModelNames({key: key for key in imported.config.models}, imported.config.aliases)
    # A config tries a name without its prefix too, which is no rule of the library.
    priced = [name for name in sorted(names_in_the_data()) if "/" not in name and names.find(name)]
    assert len(priced) > 500
    for name in priced:
        ours = engine.calculate(UsageMetrics(model=name, **usage)).total
        assert ours == their_credits(name, theirs(usage)), name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5*"),
        ("anthropic/claude-opus-5-5-20260901", "claude-opus-5-5-20??????"),
        ("openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o"),
    ],
)
def test_aliases_and_rules_become_names(engine: PricingEngine, name: str, key: str) -> None:
    assert engine.resolve(name) == key


def test_a_model_that_was_not_chosen_is_not_priced_as_one_that_was() -> None:
    """`gpt-4o-audio-preview` has prices of its own, and no name of the chosen model may catch it."""
    chosen = import_prices("genai-prices", models=["gpt-4o", "claude-2"], as_of=DAY)
    assert set(chosen.config.models) == {"gpt-4o", "claude-2", "claude-2*"}
    with pytest.raises(UnknownModelError):
        PricingEngine(chosen.config).resolve("gpt-4o-audio-preview")


def test_prices_are_those_of_the_day() -> None:
    before, after = (
        import_prices("genai-prices", models="o3", as_of=day) for day in (date(2025, 6, 9), date(2025, 6, 10))
    )
    old, new = before.config.models["o3"], after.config.models["o3"]
    assert isinstance(old, RateTable)
    assert isinstance(new, RateTable)
    assert (old.input, new.input) == (10, 2)
    assert any("changes on 2025-06-10" in note.reason for note in before.notes)
    assert not any("changes on" in note.reason for note in after.notes)


def test_the_label_names_source_version_and_date(imported: ImportedPrices) -> None:
    assert imported.label.startswith("genai-prices ")
    assert imported.label.endswith("prices of 2026-11-01")


def test_what_cannot_be_said_is_skipped_with_a_reason(imported: ImportedPrices, engine: PricingEngine) -> None:
    reasons = {note.model: note.reason for note in imported.skipped}
    assert reasons["groq/whisper-large-v3"] == "each call is billed for at least 10 seconds"
    assert "input_document_kpages" in reasons["mistral-ocr-2503"]
    assert "route" in reasons["openrouter/mistralai/mistral-large-4-0"]
    assert any("time of the day" in reason for reason in reasons.values())
    assert any("no price" in reason for reason in reasons.values())
    assert not reasons.keys() & imported.config.models.keys()
    with pytest.raises(UnknownModelError):
        engine.resolve("groq/whisper-large-v3")


def test_fees_of_web_searches_are_imported_and_others_noted(imported: ImportedPrices) -> None:
    tables = dict(exact_names(imported))
    fees = {name: (tables[name].per_web_search, tables[name].per_search_query) for name in tables}
    assert fees["gpt-4o"] == fees["claude-opus-4-0"] == (Decimal("0.01"), None)
    # Google charges a call that searched, or each query of it.
    assert (fees["gemini-2.5-flash"], fees["gemini-3-flash-preview"]) == (
        (Decimal("0.035"), None),
        (None, Decimal("0.014")),
    )
    assert sum(any(fee) for fee in fees.values()) > 100
    notes = {note.model: note.reason for note in imported.notes if "not imported" in note.reason}
    assert "storage_searches_kcount = 2.5 dollars for 1,000" in notes["gpt-4o"]
    # It depends on the sort of search, which usage does not tell.
    assert "web_searches_kcount = 2.5 dollars" in notes["perplexity/perplexity/sonar"]
    assert fees["perplexity/perplexity/sonar"] == (None, None)


def test_markup_and_credits_are_the_configs() -> None:
    config = import_prices("genai-prices", models="gpt-4o", markup=Decimal("1.3"), credits_per_dollar=1_000).config
    assert (config.markup, config.credits_per_usd) == (Decimal("1.3"), 1_000)
    assert PricingEngine(config).calculate(UsageMetrics(model="gpt-4o", input_tokens=1_000_000)).total == 3_250


def test_a_pattern_without_models_and_a_markup_of_nothing_are_refused() -> None:
    with pytest.raises(PricingConfigError, match=r"'gtp-4o' \(did you mean 'gpt-4o'\?\)"):
        import_prices("genai-prices", models=["gpt-4o", "gtp-4o"])
    with pytest.raises(PricingConfigError, match="markup"):
        import_prices("genai-prices", models="gpt-4o", markup=Decimal(0))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'ducto\[prices\]'"):
        import_prices("genai-prices")


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"neither a price list .* nor a file \(did you mean 'litellm'\?\)"):
        import_prices("lite-llm")
