"""What differs between two pricing configs, for a review before one of them is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel

from ducto.models.pricing import PricingConfigData

__all__ = ["Changed", "PricingDiff", "ValueChange", "diff_pricing"]

#: What a config holds at the end of a path; None where that path is not in it.
Value: TypeAlias = Decimal | int | str | tuple[str, ...] | None


class ValueChange(NamedTuple):
    """`path` as it would be written: `input`, `tiers[200000].output`, `variants[service_tier=flex].input`."""

    path: str
    old: Value
    new: Value

    def __str__(self) -> str:
        return f"{self.path} {_shown(self.old)} -> {_shown(self.new)}"


class Changed(NamedTuple):
    """A model or a plan that is in both configs, and what of it differs."""

    name: str
    changes: tuple[ValueChange, ...]


@dataclass(frozen=True, slots=True)
class PricingDiff:
    """The differences, each list sorted by name; false where there are none.

    `settings` are all others: `markup` (which moves every price in dollars), aliases, tools, searches, caches, jobs.
    """

    models_added: tuple[str, ...]
    models_removed: tuple[str, ...]
    models_changed: tuple[Changed, ...]
    plans_added: tuple[str, ...]
    plans_removed: tuple[str, ...]
    plans_changed: tuple[Changed, ...]
    settings: tuple[ValueChange, ...]

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in type(self).__dataclass_fields__)

    def lines(self) -> Iterator[str]:
        """One line a difference: `+` for what is new, `-` for what is gone, `~` for what is another."""
        for change in self.settings:
            yield f"~ {change}"
        parts = (
            ("model", self.models_added, self.models_removed, self.models_changed),
            ("plan", self.plans_added, self.plans_removed, self.plans_changed),
        )
        for kind, added, removed, changed in parts:
            yield from (f"+ {kind} {name}" for name in added)
            yield from (f"- {kind} {name}" for name in removed)
            yield from (f"~ {kind} {each.name}: {change}" for each in changed for change in each.changes)


def diff_pricing(old: PricingConfigData, new: PricingConfigData) -> PricingDiff:
    """What publishing `new` in the place of `old` would change.

    Prices are compared as numbers (`2.50` is `2.5`), tiers by their thresholds, and neither the order of keys nor
    what is left out in the place of a default counts.
    """
    models_added, models_removed, models_changed = _compared(old.models, new.models)
    plans_added, plans_removed, plans_changed = _compared(old.plans, new.plans)
    rest = {"models", "plans"}
    return PricingDiff(
        models_added=models_added,
        models_removed=models_removed,
        models_changed=models_changed,
        plans_added=plans_added,
        plans_removed=plans_removed,
        plans_changed=plans_changed,
        settings=_changes(_flat(_fields(old, rest)), _flat(_fields(new, rest))),
    )


def _compared(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Changed, ...]]:
    both = sorted(old.keys() & new.keys())
    changed = (Changed(name, _changes(_flat(old[name]), _flat(new[name]))) for name in both)
    return (
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        tuple(each for each in changed if each.changes),
    )


def _changes(old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[ValueChange, ...]:
    """By path, in the order of the new config; what is only in the old one comes last."""
    paths = dict.fromkeys((*new, *old))
    pairs = ((path, old.get(path), new.get(path)) for path in paths)
    return tuple(ValueChange(path, before, after) for path, before, after in pairs if before != after)


def _flat(value: Any) -> dict[str, Value]:
    """The values at the ends of all paths through `value`."""
    return {path.removeprefix("."): end for path, end in _ends(value, "")}


def _ends(value: Any, path: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, BaseModel):
        yield from _ends(_fields(value, {"tiers", "variants"}), path)
        yield from _nested(value, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _ends(item, f"{path}.{key}")
    elif value is not None:
        yield (path or "expression"), value


def _nested(value: Any, path: str) -> Iterator[tuple[str, Value]]:
    """The rates of tiers by threshold, and of variants by conditions."""
    for tier in getattr(value, "tiers", ()):
        yield from _ends(_fields(tier, set()), f"{path}.tiers[{tier.above}]")
    for key, variant in getattr(value, "variants", {}).items():
        yield from _ends(variant, f"{path}.variants[{key}]")


def _fields(value: BaseModel, without: set[str]) -> dict[str, Any]:
    return {name: item for name, item in value if name not in without}


def _shown(value: Value) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        return ", ".join(value) or "(none)"
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
