"""Does a store take what the manager passes to it? Asked once, when the manager is made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from ducto.errors import ConfigError
from ducto.stores.base import CreditStore

__all__ = ["require_whole_interface"]


def require_whole_interface(store: object) -> None:
    """Raise `ConfigError` with the list of methods and keywords of `CreditStore` that `store` lacks.

    An older store would otherwise fail, or silently ignore a limit, in the middle of a call.
    """
    lacking = [fault for name, verb in _verbs() for fault in _lacking(store, name, verb)]
    if lacking:
        raise ConfigError(
            f"{type(store).__name__} cannot be used by this manager; it lacks: {', '.join(lacking)}. "
            "Derive it from ducto.stores.base.CreditStore and take these keywords."
        )


def _verbs() -> Iterator[tuple[str, inspect.Signature]]:
    for name, verb in inspect.getmembers(CreditStore, inspect.isfunction):
        if not name.startswith("_"):
            yield name, inspect.signature(verb)


def _lacking(store: object, name: str, wanted: inspect.Signature) -> Iterator[str]:
    method = getattr(store, name, None)
    if not callable(method):
        yield name
        return
    offered = inspect.signature(method).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in offered):
        return
    by_keyword = {one.name for one in offered if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}
    for parameter in wanted.parameters:
        if parameter != "self" and parameter not in by_keyword:
            yield f"{name}({parameter}=)"
