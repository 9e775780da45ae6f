"""Finds the price of a model by its name: exact, alias, without provider prefix, most specific pattern,
default.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from ducto.errors import PricingConfigError
from ducto.pricing.suggestions import KnownNames, did_you_mean

__all__ = ["DEFAULT", "ModelNames", "check_aliases"]

DEFAULT = "_default"
_Rule = TypeVar("_Rule")

#: No key of a config is longer; past it only the cost of matching would grow.
_MAX_NAME_LENGTH = 1_000


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _without_prefixes(name: str) -> Iterator[str]:
    """`a/b/c` gives `b/c`, then `c`."""
    _, slash, rest = name.partition("/")
    while slash:
        yield rest
        _, slash, rest = rest.partition("/")


class ModelNames(Generic[_Rule]):
    """The entries of one list of models, found in the order of this module's first line.

    In a pattern `*` is any text and `?` any one character, upper and lower case differ. The one with the
    most literal characters wins, then the first by name. A pattern is tried on the whole name, then on the
    name without prefix.
    """

    def __init__(self, entries: Mapping[str, _Rule], aliases: Mapping[str, str]) -> None:
        self._aliases = aliases
        self.default: _Rule | None = entries.get(DEFAULT)
        self._exact = {name: rule for name, rule in entries.items() if name != DEFAULT and not _is_pattern(name)}
        patterns = sorted(filter(_is_pattern, entries), key=lambda name: (len(re.sub(r"[*?]", "", name)) * -1, name))
        self._known: KnownNames | None = None
        # Square brackets mean themselves here, so they are kept from `fnmatch`.
        self._patterns = [(re.compile(fnmatch.translate(name.replace("[", "[[]"))), entries[name]) for name in patterns]

    def __contains__(self, name: str) -> bool:
        return name in self._exact

    def find(self, name: str) -> _Rule | None:
        """The rule for `name`, the default included; None where there is none."""
        found = self._find(name, frozenset()) if len(name) <= _MAX_NAME_LENGTH else None
        return self.default if found is None else found

    def find_named(self, name: str) -> _Rule | None:
        """The rule for `name` without the default."""
        return self._find(name, frozenset())

    def _find(self, name: str, followed: frozenset[str]) -> _Rule | None:
        for candidate in (name, *_without_prefixes(name)):
            if candidate in self._exact:
                return self._exact[candidate]
            # An alias that was followed already is passed over: in a plan's overrides the model that ends
            # the chain may be missing.
            if candidate in self._aliases and candidate not in followed:
                found = self._find(self._aliases[candidate], followed | {candidate})
                if found is not None:
                    return found
        for candidate in (name, *_without_prefixes(name)):
            for pattern, rule in self._patterns:
                if pattern.match(candidate):
                    return rule
        return None

    def suggest(self, name: str) -> str | None:
        """The exact name or alias that was probably meant by one that is not known."""
        if self._known is None:
            self._known = KnownNames((*self._exact, *self._aliases))
        return self._known.nearest(name)


def check_aliases(names: ModelNames[_Rule], aliases: Mapping[str, str]) -> None:
    """Refuse an alias that leads back to itself or to no model, with `PricingConfigError`."""
    for alias in aliases:
        target = aliases[alias]
        seen = {alias}
        while target not in names:
            following = next(
                (name for name in (target, *_without_prefixes(target)) if name in aliases or name in names),
                None,
            )
            if following is None or following in names:
                break
            if following in seen:
                raise PricingConfigError(f"aliases.{alias}: leads back to itself through {following!r}")
            seen.add(following)
            target = aliases[following]
        if names.find_named(aliases[alias]) is None:
            suggestion = did_you_mean(names.suggest(target))
            raise PricingConfigError(f"aliases.{alias}: no model has the name {target!r}{suggestion}")
