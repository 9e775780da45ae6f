"""Prices imported from LiteLLM's list cost what LiteLLM's own calculation says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ducto.errors import ConfigError, PricingConfigError
from ducto.models.pricing import RateTable
from ducto.pricing import PricingEngine
from ducto.pricing.catalogue import ImportedPrices, import_prices
from ducto.usage import UsageMetrics
from tests.pricing.catalogue_usages import USAGES, credits_of, input_total, output_total, usage_for
from tests.pricing.litellm_environment import litellm_python, site_packages

LIST = "litellm/model_prices_and_context_window_backup.json"
#: LiteLLM looks these up by name and provider, and so finds another entry of its list.
OTHER_ENTRY = {"deepseek-chat", "gemini-exp-1206", "perplexity/perplexity/sonar"}
#: Providers whose service tier LiteLLM's calculation takes into account.
WITH_SERVICE_TIERS = {"openai", "azure", "anthropic", "bedrock", "gemini"}
#: Their searches are counted as calls that searched, and as queries.
GOOGLE = ("gemini", "vertex_ai-language-models")
MODELS_EACH = 12


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` that has LiteLLM and its metadata, and nothing else of its environment."""
    folder = tmp_path_factory.mktemp("site-packages")
    packages = site_packages()
    for found in (packages / "litellm", *packages.glob("litellm-*.dist-info")):
        (folder / found.name).symlink_to(found)
    return folder


@pytest.fixture(scope="module")
def entries(installed: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((installed / LIST).read_text())
    return found


@pytest.fixture(scope="module")
def imported(installed: Path) -> ImportedPrices:
    return import_prices(installed / LIST)


def chosen_models(imported: ImportedPrices, entries: dict[str, Any]) -> list[str]:
    """Some of every provider, those with the most prices first, since they have the most rules."""
    prices = {name: sum("cost" in key for key in entries[name]) for name in imported.config.models}
    taken: Counter[str] = Counter()
    names = []
    for name in sorted(prices, key=lambda name: (-prices[name], name)):
        provider = entries[name]["litellm_provider"]
        if name not in OTHER_ENTRY and taken[provider] < MODELS_EACH:
            taken[provider] += 1
            names.append(name)
    return names


def service_tiers(table: RateTable, provider: str) -> list[str | None]:
    own = [key.removeprefix("service_tier=") for key in table.variants if "speed" not in key]
    return [None, *(own if provider in WITH_SERVICE_TIERS else ())]


def asked_of_litellm(calls: list[tuple[str, str, str | None, dict[str, int]]]) -> list[Decimal]:
    script = Path(__file__).with_name("litellm_child.py")
    done = subprocess.run(
        [str(litellm_python()), str(script)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        # Its prices are those of its package; nothing is fetched.
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # LiteLLM calculates in binary floating point: its traces lie far behind a millionth of a credit.
    return [round(Decimal(repr(cost)), 12) for cost in json.loads(done.stdout.splitlines()[-1])]


def test_models_cost_what_litellm_says(imported: ImportedPrices, entries: dict[str, Any]) -> None:
    names = chosen_models(imported, entries)
    assert len(names) >= 400
    engine = PricingEngine(imported.config)
    calls, ours, said = [], [], []
    for name in names:
        table, provider = imported.config.models[name], entries[name]["litellm_provider"]
        assert isinstance(table, RateTable)
        for kind, usage in USAGES.items():
            # What is charged where the list states no fee, or one that no rate can say, is not imported.
            if kind == "searched" and table.per_web_search is None and table.per_search_query is None:
                continue
            # LiteLLM passes over the prices for sound of a service tier, which its list has.
            for tier in service_tiers(table, provider) if kind != "audio" else [None]:
                counts = usage_for(table, usage)
                if kind == "searched" and provider.startswith(GOOGLE):
                    # A call that searched is one, with three queries.
                    counts |= {"web_search_calls": 1, "search_queries": 3}
                totals = {"prompt": input_total(counts), "completion": output_total(counts)}
                calls.append((name, provider, tier, {**counts, **totals}))
                ours.append(engine.calculate(UsageMetrics(model=name, service_tier=tier, **counts)).total)
                said.append((name, kind, tier))
    theirs = [credits_of(dollars) for dollars in asked_of_litellm(calls)]
    wrong = [(what, we, they) for what, we, they in zip(said, ours, theirs, strict=True) if we != they]
    assert wrong == []


def test_the_installed_package_is_read_without_importing_it(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    before = sys.modules.get("litellm")
    got = import_prices("litellm", models=["gpt-4o", "gpt-5"], markup=Decimal("1.3"))
    assert got.label.startswith("litellm 1.")
    assert ", read on 20" in got.label
    assert sys.modules.get("litellm") is before
    table = got.config.models["gpt-4o"]
    assert isinstance(table, RateTable)
    assert (table.input, table.cache_read, table.output, table.max_output_tokens) == (
        Decimal("2.5"),
        Decimal("1.25"),
        10,
        16384,
    )
    assert got.config.markup == Decimal("1.3")
    assert got.config.models["gpt-5"].per_web_search == Decimal("0.01")  # type: ignore[union-attr]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match="pip install litellm"):
        import_prices("litellm")


def test_older_copies_of_the_list_are_read() -> None:
    """That of tokencost is in the same format, some versions older."""
    spec = importlib.util.find_spec("tokencost")
    assert spec is not None
    assert spec.origin is not None
    got = import_prices(Path(spec.origin).with_name("model_prices.json"), models=["gpt-4o", "claude-*"])
    assert got.label.startswith("litellm prices in model_prices.json of 20")
    assert "gpt-4o" in got.config.models
    assert len(got.config.models) > 5


def one(tmp_path: Path, **entry: Any) -> ImportedPrices:
    """A list of one model, `m`, imported."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"sample_spec": {"mode": "one of"}, "m": {"litellm_provider": "openai", **entry}}))
    return import_prices(path)


def table_of(imported: ImportedPrices) -> dict[str, Any]:
    table = imported.config.models["m"]
    assert isinstance(table, RateTable)
    return table.model_dump(exclude_none=True, exclude_defaults=True, exclude={"unit"})


def test_tiers_services_and_limits(tmp_path: Path) -> None:
    got = one(
        tmp_path,
        input_cost_per_token=1e-06,
        output_cost_per_token=4e-06,
        cache_creation_input_token_cost=1.25e-06,
        cache_creation_input_token_cost_above_1hr=2e-06,
        input_cost_per_token_above_200k_tokens=2e-06,
        output_cost_per_token_above_300k_tokens=8e-06,
        input_cost_per_token_flex=5e-07,
        input_cost_per_token_batches=4e-07,
        max_output_tokens=99,
    )
    table = table_of(got)
    assert table.pop("variants") == {
        "service_tier=flex": {
            "input": Decimal("0.5"),
            "output": 4,
            "cache_write": Decimal("1.25"),
            "cache_write_1h": 2,
            "tiers": ({"above": 200_000, "input": 2}, {"above": 300_000, "input": 2, "output": 8}),
        }
    }
    assert table == {
        "input": 1,
        "output": 4,
        "cache_write": Decimal("1.25"),
        "cache_write_1h": 2,
        "max_output_tokens": 99,
        "tiers": ({"above": 200_000, "input": 2}, {"above": 300_000, "input": 2, "output": 8}),
    }


def test_reasoning_of_a_service_tier_is_not_that_of_the_table(tmp_path: Path) -> None:
    got = one(
        tmp_path,
        input_cost_per_token=1e-06,
        output_cost_per_token=4e-06,
        output_cost_per_reasoning_token=3e-06,
        output_cost_per_token_priority=8e-06,
    )
    engine = PricingEngine(got.config)
    usage = {"model": "m", "reasoning_tokens": 1_000}
    assert engine.calculate(UsageMetrics(**usage)).total == 3_000
    assert engine.calculate(UsageMetrics(**usage, service_tier="priority")).total == 8_000


def _sizes(low: float, medium: float, high: float) -> dict[str, float]:
    return {"search_context_size_low": low, "search_context_size_medium": medium, "search_context_size_high": high}


def test_searches_have_a_rate_where_their_size_makes_no_difference(tmp_path: Path) -> None:
    tokens: dict[str, Any] = {"input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06}
    alike = one(tmp_path, **tokens, search_context_cost_per_query=_sizes(0.01, 0.01, 0.01))
    assert table_of(alike)["per_web_search"] == Decimal("0.01")
    assert alike.notes == ()
    by_query = {"search_context_cost_per_query": _sizes(0.014, 0.014, 0.014), "web_search_billing_unit": "per_query"}
    google = one(tmp_path, **tokens, **by_query)
    assert table_of(google)["per_search_query"] == Decimal("0.014")
    for sizes, provider in ((_sizes(0.005, 0.008, 0.012), "openai"), (_sizes(0.005, 0.005, 0.005), "groq")):
        noted = one(tmp_path, **tokens, search_context_cost_per_query=sizes, litellm_provider=provider)
        assert not table_of(noted).keys() & {"per_web_search", "per_search_query"}
        assert "search_context_cost_per_query = 0.005" in noted.notes[0].reason
    only = one(tmp_path, search_context_cost_per_query=_sizes(0.01, 0.01, 0.01))
    assert only.skipped == (("m", "the source states no price for it"),)


def test_a_search_costs_the_same_at_any_speed_tier_and_range(tmp_path: Path) -> None:
    tokens: dict[str, Any] = {"input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06}
    fee: dict[str, Any] = {"search_context_cost_per_query": _sizes(0.01, 0.01, 0.01)}
    fast = one(tmp_path, **tokens, **fee, litellm_provider="anthropic", provider_specific_entry={"fast": 6})
    tiered = one(tmp_path, **tokens, **fee, input_cost_per_token_above_200k_tokens=2e-06)
    ranges = [{"range": [0, 32e3], **tokens}, {"range": [32e3, 512e3], **tokens, "input_cost_per_token": 2e-06}]
    ranged = one(tmp_path, **fee, tiered_pricing=ranges)
    for imported, served in ((fast, {"speed": "fast"}), (tiered, {}), (ranged, {})):
        engine = PricingEngine(imported.config)
        usage = {"model": "m", "input_tokens": 250_000, **served}
        searched = engine.calculate(UsageMetrics(**usage, web_search_calls=2)).total
        assert searched - engine.calculate(UsageMetrics(**usage)).total == 20_000


def test_rules_of_single_providers(tmp_path: Path) -> None:
    tokens = {"input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06}
    xai = one(tmp_path, **tokens, litellm_provider="xai", input_cost_per_token_above_200k_tokens=2e-06)
    assert table_of(xai)["tiers"] == ({"above": 199_999, "input": 2},)
    fireworks = one(tmp_path, **tokens, litellm_provider="fireworks_ai")
    assert table_of(fireworks)["cache_read"] == Decimal("0.5")
    fast = one(tmp_path, **tokens, litellm_provider="anthropic", provider_specific_entry={"fast": 6, "us": 1.1})
    assert table_of(fast)["variants"] == {"speed=fast": {"input": 6, "output": 24}}


def test_prices_by_ranges_become_tiers(tmp_path: Path) -> None:
    low = {"range": [0, 32e3], "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06}
    high = {"range": [32e3, 128e3], "input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06}
    low["cache_read_input_token_cost"] = 1e-07
    table = table_of(one(tmp_path, tiered_pricing=[high, low]))
    # Without a price of its own, what was cached costs in the higher range what input costs there.
    assert table["tiers"] == ({"above": 32_000, "input": 2, "output": 8, "cache_read": 2},)
    assert table["cache_read"] == Decimal("0.1")
    for bad in ({"range": [0]}, {"range": ["a", 1]}, {}, 7):
        assert "not of the list's form" in one(tmp_path, tiered_pricing=[bad]).skipped[0].reason
    gap = one(tmp_path, tiered_pricing=[low, {**high, "range": [64e3, 128e3]}])
    assert gap.skipped == (("m", "its prices by range leave a gap"),)


def test_units_of_sound_and_speech(tmp_path: Path) -> None:
    sound = one(tmp_path, mode="audio_transcription", input_cost_per_second=1e-04, output_cost_per_second=1e-04)
    assert table_of(sound) == {"per_audio_minute": Decimal("0.006")}
    speech = one(tmp_path, mode="audio_speech", input_cost_per_character=1.5e-05)
    assert table_of(speech) == {"per_1m_characters": 15}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5.549999999999999e-06", Decimal("5.55")),
        ("3.0000000000000004e-07", Decimal("0.3")),
        ("1.25e-7", Decimal("0.125")),
        ("6.666666666666667e-07", Decimal("0.666666666666")),
    ],
)
def test_traces_of_binary_floating_point_are_taken_off(tmp_path: Path, written: str, meant: Decimal) -> None:
    path = tmp_path / "prices.json"
    path.write_text(f'{{"m": {{"litellm_provider": "openai", "input_cost_per_token": {written}}}}}')
    assert table_of(import_prices(path)) == {"input": meant}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, "the source states no price for it"),
        ({"input_cost_per_token": 0, "output_cost_per_token": 0.0}, "no price above 0"),
        ({"output_cost_per_token": 1e-06}, "no 'input'"),
        ({"input_cost_per_token": 1e-06, "input_cost_per_query": 0.1}, "'input_cost_per_query' has no place"),
        ({"input_cost_per_token": 1e-06, "input_cost_per_second": 0.1}, "'input_cost_per_second' has no place"),
        ({"input_cost_per_token": 1e-06, "price_per_moon": 0.1}, "'price_per_moon' has no place"),
        ({"input_cost_per_token": -1e-06}, "at least 0"),
        ({"input_cost_per_token": "1e-06"}, "not a number"),
        ({"input_cost_per_token": float("nan")}, "not a number"),
        ({"input_cost_per_token": 1e300}, "out of all proportion"),
        ({"input_cost_per_token": 1e-06, "off_peak_pricing": {"hours_utc": "1-2"}}, "time of the day"),
        ({"input_cost_per_token": 1e-06, "input_cost_per_audio_token_above_9k_tokens": 1e-06}, "LiteLLM bills by"),
    ],
)
def test_what_cannot_be_said_is_skipped_with_a_reason(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    got = one(tmp_path, **entry)
    assert got.config.models == {}
    assert [note.model for note in got.skipped] == ["m"]
    assert reason in got.skipped[0].reason


def test_a_name_with_a_wildcard_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"bedrock/*/m": {"litellm_provider": "bedrock", "input_cost_per_token": 1e-06}}')
    assert import_prices(path).skipped == (("bedrock/*/m", "its name would be read as a pattern"),)


@pytest.mark.parametrize("text", ["{", "[]", '{"models": {"m": {"input": 1}}}', '{"m": 1}'])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(PricingConfigError, match=r"prices\.json"):
        import_prices(path)
