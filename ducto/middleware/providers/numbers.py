"""Reading counts from JSON that others wrote: strictly from a request, tolerantly from an answer.

A count is a whole number from 0 to 2^53-1. A bool, a float (NaN, 1e308, also 12.0), a string, a nested value
or a number out of range is never converted: a request with one is refused, a field of an answer with one is
rejected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from ducto.errors import ArgumentError
from ducto.usage import MAX_AMOUNT

__all__ = ["MAX_PROBLEMS", "FieldReader", "Problems", "capped", "object_at", "objects_in", "request_count", "text_at"]

#: A stream may repeat the same fault in each of a million events; this many distinct ones are kept.
MAX_PROBLEMS = 20
MAX_TEXT_LENGTH = 200


class Problems:
    """What was wrong with an answer, for the log: distinct messages, bounded in number. They hold no user
    text.
    """

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: dict[str, None] = {}

    def add(self, message: str) -> None:
        if len(self._messages) < MAX_PROBLEMS:
            self._messages[message] = None

    def as_tuple(self) -> tuple[str, ...]:
        return tuple(self._messages)


class FieldReader:
    """Reads the counts of one object of an answer and remembers which fields it had to reject."""

    __slots__ = ("_path", "_problems", "_source", "rejected")

    def __init__(self, source: Mapping[str, Any], *, path: str, problems: Problems) -> None:
        self._source = source
        self._path = path
        self._problems = problems
        #: Names of the fields that were present with a value that is no count.
        self.rejected: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """There is nothing to read."""
        return not self._source

    def count(self, name: str) -> int | None:
        """The count `name`; `None` if it is absent, null or rejected (then it is in `rejected`)."""
        value = self._source.get(name)
        if value is None:
            return None
        if type(value) is int and 0 <= value <= MAX_AMOUNT:
            return value
        self.rejected |= {name}
        self._problems.add(f"{self._path}.{name} is not a whole number from 0 to 2^53-1 and was rejected")
        return None

    def milliseconds(self, name: str) -> int | None:
        """The seconds `name`, of which a part is a measure too, in milliseconds, rounded up; else like `count`."""
        value = self._source.get(name)
        if value is None:
            return None
        if type(value) in (int, float) and 0 <= value <= MAX_AMOUNT // 1000 and math.isfinite(value):
            return int((Decimal(str(value)) * 1000).to_integral_value(ROUND_CEILING))
        self.rejected |= {name}
        self._problems.add(f"{self._path}.{name} is not a number of seconds and was rejected")
        return None

    def part(self, name: str) -> int:
        """Like `count`, for a part of a total: 0 if it is absent or rejected."""
        return self.count(name) or 0

    def nested(self, name: str) -> FieldReader:
        """A reader of the object `name`; of an empty one if it is absent or no object."""
        value = self._source.get(name)
        if not isinstance(value, dict):
            return _NO_FIELDS
        return FieldReader(value, path=f"{self._path}.{name}", problems=self._problems)


#: What an object that is not there says. It has nothing to reject, so all may share it.
_NO_FIELDS = FieldReader({}, path="", problems=Problems())


def capped(amount: int) -> int:
    """`amount`, but at most the largest that a count can be."""
    return min(amount, MAX_AMOUNT)


def object_at(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object `name` of `source`; empty if it is absent or something else."""
    value = source.get(name)
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[dict[str, Any]]:
    """The objects in the list `value`; none if it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text_at(source: Mapping[str, Any], name: str) -> str | None:
    """The text `name` of `source`; `None` if it is absent, empty, over-long or something else."""
    value = source.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH else None


def request_count(body: Mapping[str, Any], name: str, *, minimum: int = 0) -> int | None:
    """The count `name` of a request body, `None` if it is absent or null.

    Raises `ArgumentError` for anything but a whole number from `minimum` to 2^53-1.
    """
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not minimum <= value <= MAX_AMOUNT:
        raise ArgumentError(f"'{name}' must be a whole number, at least {minimum}; send an integer.", field=name)
    return value
