"""Idempotency keys that this process has just made, told apart from those that callers bring."""

from __future__ import annotations

from uuid import uuid4

__all__ = ["FreshKey", "is_fresh", "new_key"]


class FreshKey(str):
    """A key made by this process for one call and the repetitions of that call.

    At its first use nobody can have been answered under it, so that a store need not look for an earlier answer, and
    may refuse without asking whether the call was accepted before. A copy (pickled, from JSON, `str(key)`) is a plain
    `str`, which is nobody's first use.
    """

    __slots__ = ("_was_used",)

    def first_use(self) -> bool:
        """True the first time it is asked, false ever after."""
        first = not getattr(self, "_was_used", False)
        self._was_used = True
        return first

    def __str__(self) -> str:
        return self[:]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self[:],)


def new_key() -> FreshKey:
    """A key that was never used before."""
    return FreshKey(uuid4().hex)


def is_fresh(key: str | None) -> bool:
    """Whether no call can have been made under `key` before: there is none, or this is the first use of a fresh one.

    Asking is the use.
    """
    return key is None or (isinstance(key, FreshKey) and key.first_use())
