"""The nearest of many names: as good as comparing all of them, and only a few are compared."""

from __future__ import annotations

import difflib
import random
from typing import Any

import pytest

from ducto.pricing.catalogue import import_prices
from ducto.pricing.resolution import ModelNames
from ducto.pricing.suggestions import KnownNames, nearest


@pytest.fixture(scope="module")
def names() -> list[str]:
    """5,000: those of a price list, and versions of them."""
    config = import_prices("genai-prices").config
    known = [name for name in (*config.models, *config.aliases) if not set("*?") & set(name)]
    return (known + [f"{name}-v2" for name in known])[:5_000]


def mistyped(name: str, chance: random.Random) -> str:
    """The name with a character left out, added, changed, or swapped with the one before it."""
    at = chance.randrange(1, len(name))
    return chance.choice(
        (
            name[:at] + name[at + 1 :],
            name[:at] + "x" + name[at:],
            name[:at] + "-" + name[at + 1 :],
            name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :],
        )
    )


def likeness(one: str | None, other: str) -> float:
    return difflib.SequenceMatcher(None, one or "", other).ratio()


def test_a_slip_finds_a_name_as_near_as_any(names: list[str]) -> None:
    chance, known = random.Random(6), KnownNames(names)
    for _ in range(60):
        typed = mistyped(chance.choice(names), chance)
        nearest_of_all = difflib.get_close_matches(typed, names, n=1, cutoff=0.6)
        assert likeness(known.nearest(typed), typed) == likeness(nearest_of_all[0], typed)


@pytest.mark.parametrize("typed", ["gtp-4o", "nothing-like-it", "a" * 200, "claude-" * 20, "\U0001f600 model", ""])
def test_few_of_many_names_are_compared(names: list[str], typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = difflib.get_close_matches

    def counting(word: str, possibilities: Any, **options: Any) -> list[str]:
        compared.append(len(possibilities))
        return compare(word, possibilities, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    ModelNames(dict.fromkeys(names, 1), {}).suggest(typed)
    assert compared
    assert max(compared) <= 24


def test_what_is_like_nothing_or_too_long_has_no_suggestion(names: list[str]) -> None:
    assert nearest("zzzzzzzzzz", names) is None
    assert nearest("gpt-4o" * 40, ["gpt-4o" * 40]) is None
    assert nearest("inptu", ["input", "output"]) == "input"
    assert nearest("x", []) is None


def test_aliases_are_suggested_too() -> None:
    assert ModelNames({"gpt-4o": 1}, {"house-model": "gpt-4o"}).suggest("huose-model") == "house-model"
