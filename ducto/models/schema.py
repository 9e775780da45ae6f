"""Results about the store itself: set-up and audit."""

from __future__ import annotations

from ducto.models.base import Row

__all__ = ["SetupResult", "VerifyFault", "VerifyResult"]


class SetupResult(Row):
    """`applied` names what was changed; empty where everything was in place.

    `newer` names migrations of a newer version of ducto that are in the database: it was left as it is then.
    """

    success: bool
    errors: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()


class VerifyFault(Row):
    """One invariant that does not hold: on which account, what was expected, what was found, and the first bad row."""

    invariant: str
    account: str | None = None
    expected: str
    found: str
    row: str | None = None


class VerifyResult(Row):
    ok: bool
    faults: tuple[VerifyFault, ...] = ()
