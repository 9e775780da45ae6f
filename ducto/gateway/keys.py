"""The keys by which the gateway knows its users. Only their digests are kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.types import Scope

from ducto.errors import ConfigError
from ducto.middleware.headers import header_values
from ducto.middleware.identity import Identity

__all__ = ["GatewayKeys"]

_DIGEST_PREFIX = "sha256:"


class GatewayKeys:
    """An `identify`: takes the key from `Authorization: Bearer` or `x-api-key`, where the SDKs put it.

    `keys` names the user (or `Identity`) of each key. A key may be given as `sha256:` and the hex digest of it, so
    that no configuration has to hold it. Two different keys in one request are nobody's. Raises `ConfigError` for a
    digest that is none, and for an empty key.
    """

    def __init__(self, keys: Mapping[str, str | Identity]) -> None:
        self._identities: dict[bytes, tuple[bytes, Identity]] = {}
        for key, user in keys.items():
            digest = _digest_of(key)
            self._identities[digest] = (digest, user if isinstance(user, Identity) else Identity(user))

    def __call__(self, scope: Scope) -> Identity | None:
        headers = scope["headers"]
        given = set(header_values(headers, b"x-api-key"))
        for value in header_values(headers, b"authorization"):
            scheme, _, token = value.partition(b" ")
            if scheme.lower() != b"bearer":
                return None
            given.add(token.strip())
        if len(given) != 1:
            return None
        digest = hashlib.sha256(given.pop()).digest()
        # The lookup goes by the digest, which says nothing about keys that are close to it.
        known, identity = self._identities.get(digest, (b"", None))
        return identity if hmac.compare_digest(known, digest) else None


def _digest_of(key: str) -> bytes:
    if not key:
        raise ConfigError("A gateway key is empty; give each user a long random one.")
    if not key.startswith(_DIGEST_PREFIX):
        return hashlib.sha256(key.encode()).digest()
    try:
        digest = bytes.fromhex(key.removeprefix(_DIGEST_PREFIX))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ConfigError("A gateway key starts with 'sha256:', but no 64 hexadecimal digits follow.")
    return digest
