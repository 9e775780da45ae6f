"""Prices from LiteLLM's list: the file inside its package, or a copy of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

from ducto.errors import ConfigError, PricingConfigError
from ducto.pricing.catalogue.litellm_rates import litellm_table, tool_fees
from ducto.pricing.catalogue.sources import (
    WILDCARD,
    ModelChoice,
    ModelNote,
    SourcePrices,
    UnpriceableError,
    tool_fee_note,
)

__all__ = ["read_litellm", "read_litellm_file"]

#: In the wheel. The package is never imported: that takes seconds, and asks the network for a newer list.
_FILE_IN_PACKAGE = "litellm/model_prices_and_context_window_backup.json"
#: Keys of the list that are no models.
_NOT_MODELS = frozenset({"sample_spec", "fallback_generalizations"})


def read_litellm(choice: ModelChoice, day: date) -> SourcePrices:
    """The chosen models of the installed package. The list dates none of its prices, so `day` is in the label alone.

    Raises as `import_prices`.
    """
    try:
        distribution = metadata.distribution("litellm")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "importing prices of LiteLLM needs its package: pip install litellm; or give the path of a copy of its "
            "model_prices_and_context_window.json"
        ) from None
    path = Path(str(distribution.locate_file(_FILE_IN_PACKAGE)))
    if not path.is_file():
        raise ConfigError(f"LiteLLM {distribution.version} has no {_FILE_IN_PACKAGE}; give the path of a copy of it")
    return _read(path, choice, label=f"litellm {distribution.version}, read on {day.isoformat()}")


def read_litellm_file(path: Path, choice: ModelChoice) -> SourcePrices:
    """The chosen models of a copy of the list; its date is that of the file. Raises as `import_prices`."""
    day = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
    return _read(path, choice, label=f"litellm prices in {path.name} of {day.isoformat()}")


def _read(path: Path, choice: ModelChoice, *, label: str) -> SourcePrices:
    entries = {name: entry for name, entry in _entries(path).items() if name not in _NOT_MODELS}
    choice.check(entries)
    found = SourcePrices(label=label)
    for name, entry in entries.items():
        if not choice.takes(name):
            continue
        if WILDCARD.search(name):
            found.skipped.append(ModelNote(name, "its name would be read as a pattern"))
            continue
        try:
            found.models[name] = litellm_table(entry)
        except UnpriceableError as reason:
            found.skipped.append(ModelNote(name, str(reason)))
            continue
        found.notes += (tool_fee_note(name, fee) for fee in tool_fees(entry))
    return found


def _entries(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except ValueError as error:  # JSON's syntax, or bytes that are not UTF-8
        raise PricingConfigError(f"{path}: {error}") from None
    if (
        not isinstance(entries, dict)
        or not all(isinstance(entry, dict) for entry in entries.values())
        or not any("litellm_provider" in entry for entry in entries.values())
    ):
        raise PricingConfigError(f"{path}: this is no price list in the format of LiteLLM")
    return entries
