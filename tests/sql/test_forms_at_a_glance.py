"""The quick look at the form of an item lets nothing pass that the field by field checks refuse."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.conformance.sql_harness import migrated_database

BIG = 2**53 - 1
#: Every kind of value, at and around all limits.
VALUES: tuple[Any, ...] = (
    *(None, True, False, [], [1], ["a"], {}, {"a": 1.5}, {"a": "b" * 300}, {"a": "b" * 3000}, {"a": "b" * 20_000}),
    *(-1, 0, 1, 3600, 3601, 86_400, 86_401, BIG, BIG + 1, -BIG, -BIG - 1, 10**40, 1.5, -1.5, 1e300, 1e-7),
    *("", " ", " a", "a ", "a b", "\n", "a\nb", "\x7f", '"', "\\", "é", "a\u2028b", "\u00a0a", "𐍈", "1", "1.5", "debt"),
    *("a" * 199, "a" * 200, "a" * 201, "a" * 255, "a" * 256, "é" * 100, "é" * 101, ": 1.5", '": 1.5', "clamp", "free"),
)
#: As JSON has it and Python does not write it: a whole number with a fraction of nothing.
WHOLE_WITH_FRACTION = "1.0"
ITEMS: dict[str, dict[str, Any]] = {
    "reserve": {
        "user_id": "ann",
        "amount": 5,
        "operation_type": "chat",
        "idempotency_key": "k",
        "min_balance": -5,
        "ttl_seconds": 600,
        "grace_seconds": 60,
        "model": "gpt-4.1",
        "team_id": "red",
        "overage": "clamp",
        "max_settle": 10,
        "max_concurrent": 3,
        "feature": "vision",
        "pricing_version": "3",
        "fingerprint": "f" * 64,
        "attempt_id": "a" * 32,
        "metadata": {"trace": "é", "share": 0.5},
    },
    "deduct": {
        "user_id": "ann",
        "amount": 5,
        "reservation_id": "rsv_uYW5u.1",
        "idempotency_key": "k",
        "model": "gpt-4.1",
        "pricing_version": "3",
        "estimated": True,
        "usage": {"input_tokens": 3, "seconds": 1.5},
        "metadata": {"trace": "é"},
    },
}
NEEDED = {"reserve": ("user_id", "amount", "operation_type"), "deduct": ("user_id", "amount", "reservation_id")}


def items(verb: str) -> Iterator[str]:
    """The whole item, what is needed alone, and both with each value in each field, or with the field left out."""
    whole = ITEMS[verb]
    least = {name: whole[name] for name in NEEDED[verb]}
    yield from (json.dumps(whole), json.dumps(least))
    for item, name in itertools.product((whole, least), whole):
        yield json.dumps({other: value for other, value in item.items() if other != name})
        for value in VALUES:
            yield json.dumps({**item, name: value})
        yield json.dumps({**item, name: "@"}).replace('"@"', WHOLE_WITH_FRACTION)


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("verb", sorted(ITEMS))
async def test_what_looks_sound_has_no_fault(verb: str, version: Any) -> None:
    asked = list(items(verb))
    async with migrated_database(version) as database:
        connection = await asyncpg.connect(database.superuser_url)
        try:
            found = await connection.fetch(
                f"SELECT i.item::text, ducto._{verb}_looks_sound(i.item) AS sound, "
                f"ducto._{verb}_fault(i.item) AS fault "
                "FROM unnest($1::jsonb[]) WITH ORDINALITY AS i(item, number) ORDER BY i.number",
                asked,
            )
        finally:
            await connection.close()
    assert [row["item"] for row in found if row["sound"] and row["fault"] is not None] == []
    assert all(row["sound"] is not None for row in found)
    assert [row["sound"] for row in found[:2]] == [True, True], "the quick look has to know an ordinary call"
    assert sum(row["fault"] is not None for row in found) > 100
