"""The form that arguments must have, checked before anything else and the same in every store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from ducto.errors import ArgumentError, InvalidAmountError
from ducto.models import (
    AddType,
    CapAction,
    CapType,
    CreditMetadata,
    MemberCapWindow,
    OveragePolicy,
    ReservationState,
)
from ducto.usage import MAX_AMOUNT, UsageMetrics

__all__ = [
    "check_amount",
    "check_choice",
    "check_id",
    "check_instant",
    "check_int",
    "check_key",
    "check_metadata",
    "check_open_window",
    "check_optional_id",
    "check_states",
    "check_usage",
    "check_window",
]

MAX_ID_BYTES = 200
MAX_KEY_BYTES = 255  # as Stripe's idempotency keys
MAX_METADATA_BYTES = 16_384
#: What was nested deeper could be written, but not be read again: parsers of JSON give up at about 200 levels.
MAX_METADATA_DEPTH = 64

ADD_TYPES: tuple[str, ...] = get_args(AddType)
CAP_ACTIONS: tuple[str, ...] = get_args(CapAction)
CAP_TYPES: tuple[str, ...] = get_args(CapType)
MEMBER_CAP_WINDOWS: tuple[str, ...] = get_args(MemberCapWindow)
OVERAGE_POLICIES: tuple[str, ...] = get_args(OveragePolicy)
RESERVATION_STATES: tuple[str, ...] = get_args(ReservationState)

#: Characters that must not begin or end an id: it would look the same as the id without them.
_PADDING = frozenset(" \u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))


def check_amount(value: object, *, minimum: int = 0, name: str = "amount") -> None:
    """`value` is a whole number of credits from `minimum` to 2^53-1, else `InvalidAmountError`."""
    if type(value) is not int or not minimum <= value <= MAX_AMOUNT:
        raise InvalidAmountError(
            f"{name} must be a whole number (int) of credits from {minimum} to 2^53-1, not {_shown(value)}."
        )


def check_int(value: object, *, minimum: int, maximum: int, name: str) -> None:
    """`value` is an `int` within the bounds, else `ArgumentError`."""
    if type(value) is not int or not minimum <= value <= maximum:
        raise ArgumentError(f"{name} must be a whole number from {minimum} to {maximum}, not {_shown(value)}.")


def check_id(value: object, *, name: str = "user_id", max_bytes: int = MAX_ID_BYTES) -> None:
    """`value` is text of 1 to `max_bytes` bytes of UTF-8 without control characters, surrogates or padding.

    Ids are compared byte by byte: nothing is normalised, so that an NFC and an NFD spelling are two ids.
    """
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be a str, not {type(value).__name__}.")
    # The common case, decided by C code alone.
    if value.isascii() and value.isprintable() and 0 < len(value) <= max_bytes and value.strip() == value:
        return
    if not value:
        raise ArgumentError(f"{name} must not be empty.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ArgumentError(f"{name} contains a lone surrogate, which is not valid text.") from None
    if size > max_bytes:
        raise ArgumentError(f"{name} must be at most {max_bytes} bytes of UTF-8, not {size}.")
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in value):
        raise ArgumentError(f"{name} must not contain control characters.")
    if value[0] in _PADDING or value[-1] in _PADDING:
        raise ArgumentError(f"{name} must not begin or end with a space.")


def check_optional_id(value: object, *, name: str) -> None:
    if value is not None:
        check_id(value, name=name)


def check_key(value: object) -> None:
    """`value` is `None` or an idempotency key: as an id, of 1..255 bytes. An empty key is invalid."""
    if value is not None:
        check_id(value, name="idempotency_key", max_bytes=MAX_KEY_BYTES)


def check_choice(value: object, choices: tuple[str, ...], *, name: str) -> None:
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {_shown(value)}.")


def check_states(value: object) -> tuple[str, ...]:
    """One or more states of reservations, as a tuple; a lone `str` is not taken for a list of its letters."""
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise ArgumentError(f"states must be one or more of {', '.join(RESERVATION_STATES)}, in a list.")
    for state in value:
        check_choice(state, RESERVATION_STATES, name="states")
    return tuple(value)


def check_instant(value: object, *, name: str) -> datetime:
    """An aware datetime, in UTC."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ArgumentError(f"{name} must be an aware datetime (with a time zone), not {_shown(value)}.")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ArgumentError(f"{name} is outside the years 1 to 9999 of UTC.") from None


def check_window(start: object, end: object) -> tuple[datetime, datetime]:
    """A half-open window `[start, end)`; it may be empty."""
    first, last = check_instant(start, name="start"), check_instant(end, name="end")
    if first > last:
        raise ArgumentError("start must not be after end.")
    return first, last


def check_open_window(start: object, end: object) -> tuple[datetime | None, datetime | None]:
    """As `check_window`, where a bound may be `None`."""
    first = None if start is None else check_instant(start, name="start")
    last = None if end is None else check_instant(end, name="end")
    if first is not None and last is not None:
        check_window(first, last)
    return first, last


def check_usage(value: object) -> None:
    if value is not None and not isinstance(value, UsageMetrics):
        raise ArgumentError(f"usage must be a UsageMetrics, not {type(value).__name__}.")


def check_metadata(value: object) -> dict[str, Any] | None:
    """The metadata as a plain JSON object of at most 16 KiB and 64 levels, a copy that the caller cannot change
    afterwards.
    """
    if value is None:
        return None
    if not isinstance(value, (Mapping, CreditMetadata)):
        raise ArgumentError(f"metadata must be a mapping or CreditMetadata, not {type(value).__name__}.")
    try:
        plain = value.as_dict() if isinstance(value, CreditMetadata) else dict(value)
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ArgumentError("metadata contains a lone surrogate, which is not valid text.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"metadata must be plain JSON: {error}.") from None
    if size > MAX_METADATA_BYTES:
        raise ArgumentError(f"metadata must be at most {MAX_METADATA_BYTES} bytes of JSON, not {size}.")
    # JSON escapes a NUL; databases that keep JSON as text cannot store it.
    if "\\u0000" in text.replace("\\\\", ""):
        raise ArgumentError("metadata must not contain NUL characters.")
    copied: dict[str, Any] = json.loads(text)
    # The common case has not even so many brackets.
    if text.count("[") + text.count("{") > MAX_METADATA_DEPTH and _is_deeper(copied, MAX_METADATA_DEPTH):
        raise ArgumentError(f"metadata must be nested at most {MAX_METADATA_DEPTH} levels deep.")
    return copied


def _is_deeper(value: object, levels: int) -> bool:
    """Has `value` more than so many levels of lists and objects?"""
    if not isinstance(value, (dict, list)):
        return False
    return levels == 0 or any(
        _is_deeper(one, levels - 1) for one in (value.values() if isinstance(value, dict) else value)
    )


def _shown(value: object) -> str:
    """A value for a message: short, and never the whole of what may be long."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to print an int of thousands of digits.
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."
