"""The headers that the doors add and read, over ASGI's lists of byte pairs."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BALANCE",
    "CLAMPED",
    "COST",
    "HELD",
    "IDEMPOTENCY_KEY",
    "OWN_PREFIX",
    "REPLAYED",
    "RESERVATION",
    "Headers",
    "header_values",
    "without_headers",
    "without_own",
]

Headers = list[tuple[bytes, bytes]]

OWN_PREFIX = b"x-ducto-"
#: Id of the reservation, and the credits that the balance held for the call.
RESERVATION = b"x-ducto-reservation"
HELD = b"x-ducto-held"
#: What the call was charged, and the balance after it; only where the charge is known before the answer is sent.
COST = b"x-ducto-cost"
BALANCE = b"x-ducto-balance"
#: The output limit in tokens to which the request was lowered.
CLAMPED = b"x-ducto-clamped"
#: `true` on the kept answer of an earlier call with the same key.
REPLAYED = b"x-ducto-replayed"

IDEMPOTENCY_KEY = b"idempotency-key"


def header_values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of the header `name`, which must be in lower case."""
    return [value for given, value in headers if given.lower() == name]


def without_headers(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]


def without_own(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """`headers` without those that only we may set, whoever sent them."""
    return [(name, value) for name, value in headers if not name.lower().startswith(OWN_PREFIX)]
