"""How things are named in Redis. All of one account has one hash tag, so that in a cluster it is in one slot."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex
from typing import Literal
from urllib.parse import quote

from ducto.arguments import MAX_ID_BYTES
from ducto.ledger.ids import account_of

__all__ = ["RedisKeys", "digest"]

#: Of keys and of values together: what another layout has written is never found.
_LAYOUT_VERSION = 1


class RedisKeys:
    """The names of one store: `prefix` sets it apart from what else is in that Redis."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{prefix}:{_LAYOUT_VERSION}:"

    def user(self, user_id: object) -> str:
        return self._account("u", user_id)

    def team(self, team_id: object) -> str:
        return self._account("t", team_id)

    def payer(self, user_id: object, team_id: object) -> str:
        """The account that pays for a call."""
        return self.user(user_id) if team_id is None else self.team(team_id)

    def of_minted(self, minted_id: object) -> str | None:
        """The account that a reservation or a transaction is in; `None` for what is no id of one."""
        named = account_of(minted_id) if isinstance(minted_id, str) else None
        if named is None:
            return None
        return self.user(named[1]) if named[0] == "user" else self.team(named[1])

    def all_of(self, minted_id: object) -> list[str]:
        """The same as a list, which is empty where there is no such account."""
        account = self.of_minted(minted_id)
        return [] if account is None else [account]

    @staticmethod
    def hold(account: str) -> str:
        """Where it is marked that the outcome of a write to the account is not known."""
        return f"{account}:h"

    @staticmethod
    def reply(account: str, verb: str, *scope: str) -> str:
        """Where the reply of a keyed call is kept; `scope` is the key and what else tells such calls apart."""
        return f"{account}:r:{verb}:{digest(*scope)}"

    def _account(self, kind: Literal["u", "t"], account_id: object) -> str:
        # What can be no id is refused by the inner store; here it must only not be large.
        text = account_id if isinstance(account_id, str) and len(account_id) <= MAX_ID_BYTES else ""
        # A brace would end the hash tag; a percent sign is encoded so that no two ids have the same name.
        if not text.isascii() or not text.isprintable() or "{" in text or "}" in text or "%" in text:
            text = quote(text, safe=" ", errors="surrogatepass")
        return f"{self._start}{{{kind}:{text}}}"


def digest(*parts: object) -> str:
    """A short text for many values: equal if and only if each of them has the same type and value."""
    try:
        text = repr(parts)
    except ValueError:  # Python refuses to print an int of thousands of digits, which equals nothing that is valid.
        text = token_hex(20)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:40]
