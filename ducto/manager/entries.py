"""What calls owe as JSON, for the journal, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeAlias

from ducto.arguments import check_metadata
from ducto.errors import DuctoError
from ducto.fresh_keys import FreshKey
from ducto.manager.charges import Charge, Settlement
from ducto.usage import UsageMetrics

__all__ = ["Owed", "entry_of", "owed_of", "worth_keeping"]

Owed: TypeAlias = Settlement | Charge

_KINDS: Mapping[str, type[Settlement] | type[Charge]] = {"settlement": Settlement, "charge": Charge}
_NAMES = {kind: name for name, kind in _KINDS.items()}
#: Field and default of each kind: what has its default is left out.
_FIELDS = {
    kind: tuple((one.name, None if one.default is MISSING else one.default) for one in fields(kind))
    for kind in _KINDS.values()
}
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


def worth_keeping(owed: Owed) -> bool:
    """Is it owed whatever becomes of the caller, and does booking it later never book it twice?

    A settlement is, under its reservation; a forced charge under a key of the caller's as well. A charge that asks for
    credits first is the caller's to repeat. So is one under a key that was made for it alone: the caller, who does not
    know the key, would charge again.
    """
    return isinstance(owed, Settlement) or (owed.force and not isinstance(owed.idempotency_key, FreshKey))


def entry_of(owed: Owed) -> bytes | None:
    """As a JSON object on one line; `None` for what the store will refuse for its form."""
    entry: dict[str, Any] = {"kind": _NAMES[type(owed)]}
    for name, default in _FIELDS[type(owed)]:
        value = getattr(owed, name)
        if value is not default and value != default:
            entry[name] = value
    try:
        if owed.metadata is not None:
            entry["metadata"] = check_metadata(owed.metadata)
        if owed.usage is not None:
            entry["usage"] = owed.usage.model_dump(mode="json", exclude_defaults=True)
        return _encode(entry).encode("ascii")
    except (DuctoError, TypeError, ValueError, AttributeError):
        return None


def owed_of(entry: Any) -> Owed:
    """What `entry_of` was made of. Raises `ValueError` for an entry that this version does not understand."""
    try:
        given = dict(entry)
        kind = _KINDS[given.pop("kind")]
        if "usage" in given:
            given["usage"] = UsageMetrics.model_validate(given["usage"])
        return kind(**given)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"the record is not one that this version knows ({type(error).__name__})") from None
