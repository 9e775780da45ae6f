"""What every price list is turned into, whatever its own format."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ducto.errors import PricingConfigError
from ducto.models.pricing import PricingConfigData, RateTable
from ducto.pricing.suggestions import did_you_mean, nearest

__all__ = [
    "WILDCARD",
    "ImportedPrices",
    "ModelChoice",
    "ModelNote",
    "SourcePrices",
    "UnpriceableError",
    "tool_fee_note",
]

#: A name with one of these is a pattern in a config.
WILDCARD = re.compile(r"[*?]")


class UnpriceableError(Exception):
    """A rule of the source that a rate table cannot say. The text is the reason that the user reads."""


class ModelNote(NamedTuple):
    """A sentence on one model. `model` is its name as a key of the config."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImportedPrices:
    """A config of nothing but imported prices, and what there is to know about it before it is published.

    `label` names the source, its version and its date, for the version of the config that is published.
    `skipped` are the models that were asked for and that a config cannot price as their source does. `notes` are on
    models that were imported: fees of their source that no rate can say, and prices that are announced to change.
    """

    config: PricingConfigData
    label: str
    skipped: tuple[ModelNote, ...]
    notes: tuple[ModelNote, ...]


def tool_fee_note(model: str, fee: str) -> ModelNote:
    """The note on a fee of a hosted tool that a rate table cannot say."""
    return ModelNote(model, f"not imported: {fee}, a fee of a hosted tool; price it under `tools` or `search`")


@dataclass(slots=True)
class SourcePrices:
    """What a source gave of the models that were chosen. `aliases` lead to keys of `models`."""

    label: str
    models: dict[str, RateTable] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    skipped: list[ModelNote] = field(default_factory=list)
    notes: list[ModelNote] = field(default_factory=list)


class ModelChoice:
    """The models that were asked for, as shell patterns in which `*` is any text, `/` included."""

    def __init__(self, patterns: str | Iterable[str]) -> None:
        self.patterns: Sequence[str] = (patterns,) if isinstance(patterns, str) else tuple(patterns)

    def takes(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns)

    def check(self, names: Iterable[str]) -> None:
        """Refuse a pattern that none of the source's `names` fits, with `PricingConfigError`."""
        known = list(names)
        for pattern in self.patterns:
            if not fnmatch.filter(known, pattern):
                hint = did_you_mean(nearest(pattern, known))
                raise PricingConfigError(f"no model of the price list fits {pattern!r}{hint}")
