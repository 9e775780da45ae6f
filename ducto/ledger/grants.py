"""What grants have to do with a movement or a hold, as it is shown."""

from __future__ import annotations

from collections.abc import Iterable

from ducto.ledger.state import Account
from ducto.models import GrantPart

__all__ = ["grant_parts"]


def grant_parts(account: Account, parts: Iterable[tuple[int, int]]) -> tuple[GrantPart, ...]:
    """Pairs of a grant's number and an amount, with the grant's expiry."""
    return tuple(
        GrantPart(grant=number, amount=amount, expires_at=account.grants[number].expires_at) for number, amount in parts
    )
