"""Ids that the store mints. Opaque to callers; they name the account, so that it can be locked first, and within it
the hold or the row, so that everything stays local to the account. An id grants no right: owners are checked."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Literal

__all__ = ["account_of", "account_tag", "reservation_id", "transaction_id"]

_RESERVATION, _TRANSACTION = "rsv_", "txn_"
#: As many as 2^53-1 has. `int()` raises for thousands of digits, and an id comes from the caller.
_MAX_DIGITS = 16


def account_tag(kind: Literal["user", "team"], account_id: str) -> str:
    return kind[0] + urlsafe_b64encode(account_id.encode()).decode().rstrip("=")


def reservation_id(tag: str, number: int | Literal[""]) -> str:
    return f"{_RESERVATION}{tag}.{number}"


def transaction_id(tag: str, sequence: int) -> str:
    return f"{_TRANSACTION}{tag}.{sequence}"


def account_of(minted: str) -> tuple[Literal["user", "team"], str, int] | None:
    """Kind and id of the account in a minted id, and the number within it; `None` for what was never minted."""
    tag, dot, number = minted[4:].rpartition(".")
    kind = {"u": "user", "t": "team"}.get(tag[:1])
    if minted[:4] not in (_RESERVATION, _TRANSACTION) or not dot or kind is None:
        return None
    if not number.isdecimal() or len(number) > _MAX_DIGITS:
        return None
    encoded = tag[1:]
    try:
        account_id = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
    return ("user" if kind == "user" else "team"), account_id, int(number)
