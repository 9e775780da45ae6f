"""What the SQL error codes of Postgres mean for a caller. Used for asyncpg and for PostgREST, which passes them on."""

from __future__ import annotations

from ducto.errors import StoreError
from ducto.stores.repeating import OutcomeUnknownError

__all__ = ["MIGRATE_HINT", "error_of_sqlstate"]

MIGRATE_HINT = (
    "ducto's tables or functions are missing or too old in this database: "
    "run `ducto migrate`, or `await store.setup(database_url)` once."
)

#: The server ended the session or the transaction, so nobody can tell what had been done; deadlocks are rolled back.
_UNKNOWN = frozenset(
    {"57P01", "57P02", "57P05", "40P01", "08000", "08001", "08003", "08004", "08006", "08007", "08P01"}
)
_MISSING = frozenset({"42883", "42P01", "42703", "3F000"})
#: Nothing was done, and the same call may pass later.
_LATER = frozenset({"57P03", "53000", "53100", "53200", "53300", "53400", "25006"})


def error_of_sqlstate(sqlstate: str, message: str) -> StoreError:
    """The error to raise. `message` is the server's own first line, never its detail, which may quote stored data."""
    if sqlstate == "55P03":
        return StoreError("The account was locked for too long by another call; try again.", retryable=True, busy=True)
    if sqlstate == "57014":
        return StoreError("The database took too long and was told to stop.", retryable=True, busy=True)
    if sqlstate in _UNKNOWN:
        return OutcomeUnknownError(f"The database ended the call ({sqlstate}).")
    if sqlstate in _LATER:
        return StoreError(f"The database cannot serve the call now ({sqlstate}: {message}).", retryable=True)
    if sqlstate in _MISSING and "ducto" in message:
        return StoreError(f"{MIGRATE_HINT} ({message})", retryable=False)
    if sqlstate == "42501":
        return StoreError(
            f"This login may not call ducto's functions ({message}). Give the role of the application the right with "
            "`ducto migrate --grant-to ROLE`; through PostgREST use the service_role key.",
            retryable=False,
        )
    return StoreError(f"The database refused the call ({sqlstate}: {message}).", retryable=False)
