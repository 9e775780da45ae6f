"""Pricing from the command line, on a real Postgres."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from ducto import PricingConfigData, UsageMetrics
from ducto.cli import pricing_review
from ducto.pricing import load_pricing_file
from ducto.pricing.diff import PricingDiff
from tests.cli.conftest import Ducto

FIRST = """
models:
  gpt-4o: {unit: usd, input: 2.50, cache_read: 1.25, output: 10}
  house: "input_tokens * 2"
plans:
  pro: {rate_overrides: {house: "input_tokens"}}
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    path = tmp_path / "first.yaml"
    path.write_text(FIRST)
    return path


@pytest.fixture
def second(tmp_path: Path) -> Path:
    path = tmp_path / "second.yaml"
    path.write_text(FIRST.replace("2.50", "3"))
    return path


def active(ducto: Ducto) -> int:
    return next(each["version"] for each in ducto.json("pricing", "list") if each["active"])


def test_versions_are_published_listed_compared_and_activated(ducto: Ducto, first: Path, second: Path) -> None:
    assert "ducto pricing set" in ducto.refused("pricing", "show", code=1)
    one = ducto.json("pricing", "set", str(first), "--label", "January", "--expect", "0")
    assert (one["version"], one["label"], one["active"]) == (1, "January", True)
    assert one["key"].startswith("cli-")
    assert "active" in ducto.refused("pricing", "set", str(second), "--expect", "0", code=1)
    assert ducto.json("pricing", "set", str(second), "--expect", "1", "--key", "two")["version"] == 2
    assert ducto.json("pricing", "set", str(second), "--key", "two")["version"] == 2
    assert [each["version"] for each in ducto.json("pricing", "list")] == [2, 1]

    assert ducto.json("pricing", "show")["config"]["models"]["gpt-4o"]["input"] == "3"
    shown = ducto.run("pricing", "show", "1")
    assert "January" in shown
    assert "input_tokens * 2" in shown
    assert "~ model gpt-4o: input 3 -> 2.5" in ducto.run("pricing", "diff", str(first))
    assert ducto.run("pricing", "diff", "1", str(first)) == "There is no difference.\n"
    changed = ducto.json("pricing", "diff", "1", "2")["models_changed"]
    assert changed == [{"name": "gpt-4o", "changes": [{"path": "input", "old": "2.5", "new": "3"}]}]

    assert ducto.json("pricing", "activate", "1")["version"] == 1
    assert active(ducto) == 1


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_export_is_a_file_that_says_the_same(ducto: Ducto, first: Path, tmp_path: Path, ending: str) -> None:
    ducto.run("pricing", "set", str(first))
    file = tmp_path / f"out.{ending}"
    ducto.run("pricing", "export", "--out", str(file))
    assert load_pricing_file(file) == load_pricing_file(first)
    assert "min_balance" not in file.read_text(), "what is as by default is left out"
    if ending == "json":
        assert ducto.run("pricing", "export") == file.read_text()
    else:
        assert yaml.safe_load(file.read_text())["models"]["gpt-4o"]["input"] == "2.5"


def test_what_a_call_costs_part_by_part(ducto: Ducto, first: Path) -> None:
    ducto.run("pricing", "set", str(first))
    call = ("pricing", "price", "gpt-4o", "--input", "1000", "--output", "50", "--count", "cache_read_tokens=500")
    told = ducto.json(*call)
    assert (told["price"], told["exact"], told["priced_by"]) == (3_625, "3625", "gpt-4o")
    assert told["parts"][1] == {"name": "cache_read_tokens", "quantity": 500, "amount": "625"}
    assert told["reserved_for_its_size"] == 4_250
    assert "cache_read_tokens" in ducto.run(*call)
    by_plan = ducto.json("pricing", "price", "house", "--input", "10", "--plan", "pro")
    assert (by_plan["price"], by_plan["plan_id"]) == (10, "pro")


def test_files_are_priced_compared_and_checked_without_a_store(
    ducto: Ducto, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUCTO_STORE")
    assert ducto.json("pricing", "price", "house", "--input", "10", "--config", str(first))["price"] == 20
    assert ducto.json("pricing", "validate", str(first)) == {"ok": True, "models": 2, "plans": 1}
    assert "input 2.5 -> 3" in ducto.run("pricing", "diff", str(first), str(second))
    assert "DUCTO_STORE" in ducto.refused("pricing", "diff", str(second), code=2)


def test_import_shows_what_it_would_change_and_publishes_on_demand(
    ducto: Ducto, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ducto.run("pricing", "set", str(first))
    before = active(ducto)
    call = ("pricing", "import", "--from", "genai-prices", "--models", "gpt-4o*", "--markup", "1.5")
    shown = ducto.run(*call)
    assert "~ model gpt-4o: input 2.5 -> 3.75" in shown
    assert "--publish" in shown
    assert active(ducto) == before

    told = ducto.json(*call, "--publish", "--key", "import-1")
    assert told["label"].startswith("genai-prices ")
    assert (told["published"], told["key"]) == (ducto.json("pricing", "show")["id"], "import-1")
    now = ducto.json("pricing", "show")
    assert (now["label"], now["version"]) == (told["label"], before + 1)
    assert now["config"]["models"]["house"] == "input_tokens * 2"
    assert ducto.json("pricing", "price", "gpt-4o", "--input", "1000")["price"] == 3_750
    assert ducto.json(*call, "--publish")["published"] is None, "nothing changes, so nothing is published"

    monkeypatch.delenv("DUCTO_STORE")
    file = tmp_path / "prices.yaml"
    ducto.run(*call, "--out", str(file))
    assert ducto.json("pricing", "price", "gpt-4o", "--input", "1000", "--config", str(file))["price"] == 3_750


def test_import_does_not_overwrite_what_was_published_since_its_diff_was_made(
    ducto: Ducto, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ducto.run("pricing", "set", str(first))
    compared = pricing_review.diff_pricing

    def meanwhile(old: PricingConfigData, new: PricingConfigData) -> PricingDiff:
        with ThreadPoolExecutor() as other:  # A loop of its own, as another process has.
            other.submit(ducto.did, lambda manager: manager.publish_pricing(load_pricing_file(second))).result()
        return compared(old, new)

    monkeypatch.setattr(pricing_review, "diff_pricing", meanwhile)
    importing = ("pricing", "import", "--from", "genai-prices", "--models", "gpt-4o", "--publish", "--json")
    said = ducto.refused(*importing, code=1)
    assert json.loads(said)["error"] == "version_conflict"
    assert ducto.json("pricing", "show")["config"]["models"]["gpt-4o"]["input"] == "3"


def test_a_receipt_goes_by_the_plan_as_it_was_then(ducto: Ducto, first: Path, tmp_path: Path) -> None:
    ducto.run("pricing", "set", str(first))
    ducto.run("credits", "add", "alice", "1000")
    ducto.run("plans", "assign", "alice", "pro")
    usage = UsageMetrics(model="house", input_tokens=10)
    spent = ducto.did(lambda manager: manager.deduct("alice", usage))
    assert spent.transaction_id is not None
    later = tmp_path / "later.yaml"
    later.write_text(FIRST.replace('house: "input_tokens"}', 'house: "input_tokens * 7"}'))
    ducto.run("pricing", "set", str(later))
    pricing = ducto.json("explain", spent.transaction_id)["pricing"]
    assert (pricing["formula"], pricing["from_plan"], pricing["price"]) == ("input_tokens", True, 10)


def test_a_file_at_fault_says_where(ducto: Ducto, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text('models: {m: "output_token * 10"}')
    for command in ("validate", "set"):
        said = ducto.refused("pricing", command, str(bad), code=1)
        assert "models.m" in said
        assert "did you mean 'output_tokens'" in said
    bad.write_text("models: [")
    assert "not YAML" in ducto.refused("pricing", "validate", str(bad), code=1)
    missing = ducto.refused("pricing", "set", str(tmp_path / "none.yaml"), code=2)
    assert "none.yaml cannot be read: No such file" in missing
    assert "is a .json, .yaml or .yml file" in ducto.refused("pricing", "validate", str(tmp_path), code=2)


def test_mistakes(ducto: Ducto, first: Path, tmp_path: Path) -> None:
    ducto.run("pricing", "set", str(first))
    assert "no pricing version '99'" in ducto.refused("pricing", "show", "99", code=1)
    assert "99" in ducto.refused("pricing", "activate", "99", code=1)
    assert "did you mean 'gpt-4o'" in ducto.refused("pricing", "price", "gtp-4o", "--input", "1", code=1)
    price = ("pricing", "price", "house")
    assert "did you mean 'input_tokens'" in ducto.refused(*price, "--count", "input_token=1", code=2)
    assert "whole number" in ducto.refused(*price, "--count", "input_tokens=1.5", code=2)
    assert "--out" in ducto.refused("pricing", "export", "--out", str(tmp_path / "x.txt"), code=2)
    importing = ("pricing", "import", "--from")
    assert "no file 'nowhere'" in ducto.refused(*importing, "nowhere", code=2)
    assert "--markup" in ducto.refused(*importing, "genai-prices", "--markup", "lots", code=2)
    said = json.loads(ducto.refused("pricing", "show", "99", "--json", code=1))
    assert said["error"] == "pricing_not_found"
