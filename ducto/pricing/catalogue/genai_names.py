"""The names by which a config finds the models of `genai-prices`.

That library finds a provider for a name, then the first model of the provider whose rule fits. A config knows exact
names and patterns, of which the longest wins. So a rule becomes names only as far as both find the same model; this
is tried on every name in the data, and on dated forms of it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ducto.pricing.catalogue.sources import WILDCARD, UnpriceableError
from ducto.pricing.resolution import ModelNames

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

__all__ = ["ModelNaming"]

#: The rules of the data for dated names: a plain name, then a date as digits.
_DATED = re.compile(r"\^(?P<name>(?:[\w/:-]|\\\.)+-)\\d\{(?:8|4\}-\\d\{2\}-\\d\{2)\}\$")
#: What is put behind a known name to try a pattern.
_ENDINGS = ("", "-latest", "-20260131", "-2026-01-31", "@20260131", "x")


class ModelNaming:
    """`names` gives each model, by its `id()`, the key that it has in a config.

    That is the model's own id, or else the first name of its rule, by which the library finds it; behind `PROVIDER/`
    where the library finds it only by being told the provider.
    """

    def __init__(self, providers: list[Provider]) -> None:
        snapshot = importlib.import_module("genai_prices.data_snapshot")
        # A snapshot of our own: the application may have put a downloaded one in the place of the package's.
        self._snapshot: Any = snapshot.DataSnapshot(providers=providers, from_auto_update=False)
        self._providers = providers
        self._owners: dict[str, ModelInfo | None] = {}
        self._unreachable: set[int] = set()
        self.names: dict[int, str] = {}
        for provider in providers:
            for model in provider.models:
                key = next(self._keys(provider, model), None)
                if key is None:
                    self._unreachable.add(id(model))
                self.names[id(model)] = key or f"{provider.id}/{model.id}"

    def _owner(self, name: str) -> ModelInfo | None:
        """The model that the library finds by `name` without being told a provider."""
        if name not in self._owners:
            try:
                self._owners[name] = self._snapshot.find_provider_model(name, None, None, None)[1]
            except LookupError:
                self._owners[name] = None
        return self._owners[name]

    def _keys(self, provider: Provider, model: ModelInfo) -> Iterator[str]:
        """The exact names that lead to `model`, those without a provider first."""
        texts = [model.id, *(text for text, is_prefix in _names_in(model.match) if _is_whole(text, is_prefix))]
        texts = [text for text in texts if not WILDCARD.search(text)]
        alone = [text for text in texts if self._owner(text) is model]
        yield from alone
        # A name that is found alone is found behind any prefix too.
        yield from (
            f"{provider.id}/{text}" for text in texts if text not in alone and provider.find_model(text) is model
        )

    def check_reachable(self, model: ModelInfo) -> None:
        """Refuse a model that has no name of its own, with `UnpriceableError`."""
        if id(model) in self._unreachable:
            raise UnpriceableError("no exact name leads to it")

    def other_names(self, imported: Mapping[str, ModelInfo]) -> tuple[dict[str, str], dict[str, str]]:
        """Exact names and patterns of the `imported` models, each with the key that it leads to."""
        exact: dict[str, str] = {}
        patterns: dict[str, str] = {}
        for provider in self._providers:
            for model in provider.models:
                name = self.names[id(model)]
                if imported.get(name) is not model:
                    continue
                keys = list(self._keys(provider, model))
                exact.update(dict.fromkeys(keys, name))
                if any(self._owner(key) is model for key in keys):
                    patterns.update(dict.fromkeys(_patterns_in(model.match), name))
        exact = {text: name for text, name in exact.items() if text not in imported}
        return exact, self._sound(patterns, exact, imported)

    def _sound(
        self, patterns: dict[str, str], exact: Mapping[str, str], imported: Mapping[str, ModelInfo]
    ) -> dict[str, str]:
        """Those of `patterns` that find, for every name tried, the model that the library finds."""
        tried = self._tried(patterns)
        while True:
            # Each entry stands for itself, so that a lookup tells which one it was.
            names = ModelNames({name: name for name in (*imported, *patterns)}, exact)
            wrong = {
                pattern
                for probe in tried
                if (pattern := names.find_named(probe)) in patterns
                and self._owner(probe) is not imported[patterns[pattern]]
            }
            if not wrong:
                return patterns
            # Without these another pattern may come to be the longest, so all are tried again.
            patterns = {pattern: name for pattern, name in patterns.items() if pattern not in wrong}

    def _tried(self, patterns: Mapping[str, str]) -> set[str]:
        known = {
            text.lower()
            for provider in self._providers
            for model in provider.models
            for text in (model.id, *(text for text, _ in _names_in(model.match, loose=True)))
        }
        beginnings = {WILDCARD.split(pattern)[0] for pattern in patterns}
        return {
            beginning + text[len(beginning) :] + ending
            for beginning in beginnings
            for text in (beginning.lower(), *known)
            if text.startswith(beginning.lower())
            for ending in _ENDINGS
        }


def _names_in(rule: Any, *, loose: bool = False) -> Iterator[tuple[str, bool]]:
    """The names that a rule states, and whether each is only the beginning of names.

    `loose` gives, from rules that cannot be said as names, the texts in them as well.
    """
    parts = vars(rule)
    if "or_" in parts:
        for part in rule.or_:
            yield from _names_in(part, loose=loose)
    elif "equals" in parts:
        yield rule.equals, False
    elif "starts_with" in parts:
        yield rule.starts_with, True
    elif loose:
        for part in parts.get("and_", ()):
            yield from _names_in(part, loose=True)
        yield from ((text, False) for key in ("contains", "ends_with") if (text := parts.get(key)))


def _is_whole(text: str, is_prefix: bool) -> bool:
    """Whether a text of a rule may be a name by itself."""
    return not is_prefix or text[-1:].isalnum()


def _patterns_in(rule: Any) -> Iterator[str]:
    """A rule's beginnings of names, and its names with any date behind them, as patterns."""
    parts = vars(rule)
    for part in parts.get("or_", ()):
        yield from _patterns_in(part)
    if (start := parts.get("starts_with")) and not WILDCARD.search(start):
        yield f"{start}*"
    if "regex" in parts and (dated := _DATED.fullmatch(rule.regex)):
        # Of this century, so that few words can be taken for a date.
        date = "20??????" if "{8}" in rule.regex else "20??-??-??"
        yield dated["name"].replace("\\", "") + date
