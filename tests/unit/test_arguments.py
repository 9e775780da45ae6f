"""The form of arguments: a table of what is refused, with which code, and that a refusal changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from ducto import arguments
from ducto.errors import ArgumentError, InvalidAmountError
from ducto.models import CreditMetadata
from ducto.stores.memory import MemoryStore
from ducto.usage import MAX_AMOUNT


class Five(IntEnum):
    FIVE = 5


BAD_AMOUNTS = [
    -1,
    MAX_AMOUNT + 1,
    2**63,
    1.0,
    0.5,
    float("nan"),
    float("inf"),
    True,
    False,
    "5",
    b"5",
    None,
    Decimal(5),
]
BAD_AMOUNTS += [Five.FIVE, [5], 10**5000]
BAD_IDS: list[Any] = ["", " a", "a ", "\u00a0a", "a\u3000", "a\u2028", "\u2003", "a\x00b", "a\nb", "\x7f", "a\x85b"]
BAD_IDS += ["\ud800", "a\udfff", "x" * 201, "é" * 101, None, 5, b"ann", ["ann"], True]
GOOD_IDS = [
    "a",
    "a b",
    "Zoë",
    "Zoe\u0308",
    "🦆",
    "שלום",
    "x" * 200,
    "é" * 100,
    "'; DROP TABLE users; --",
    "a\u200db",
    "\\",
]
BAD_METADATA: list[Any] = [[], "text", 5, {"a": object()}, {"a": float("nan")}, {"a": float("inf")}, {"a": "\ud800"}]
BAD_METADATA += [CreditMetadata.model_validate({"x": object()}), CreditMetadata(source="\ud800")]
BAD_METADATA += [{"a": "\x00"}, {"\x00": 1}, {"a": "x" * 16_384}, {"a": {1, 2}}, {("a",): 1}, {"a": 10**5000}]


NEVER_MINTED = ["", "rsv_", "rsv_uYW5u", "rsv_uYW5u.", "rsv_x.1", "rsv_uYW5u.1x", "rsv_uYW5u.\u0661", "rsv_u\ud800.1"]
NEVER_MINTED += ["rsv_uYW5u." + "9" * 5000, "x" * 10_000, "rsv_u!!.1", "rsv_u/w.1"]


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda each: repr(type(each).__name__))
def test_bad_amounts(amount: Any) -> None:
    with pytest.raises(InvalidAmountError) as caught:
        arguments.check_amount(amount)
    assert len(str(caught.value)) < 200


def test_good_amounts() -> None:
    for amount in (0, 1, MAX_AMOUNT):
        arguments.check_amount(amount)
    with pytest.raises(InvalidAmountError, match="from 1 to"):
        arguments.check_amount(0, minimum=1)


@pytest.mark.parametrize("value", BAD_IDS, ids=ascii)
def test_bad_ids(value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        arguments.check_id(value)
    assert caught.value.code == "invalid_argument"


@pytest.mark.parametrize("value", GOOD_IDS, ids=ascii)
def test_good_ids(value: str) -> None:
    arguments.check_id(value)


def test_a_key_may_be_longer_than_an_id_and_may_be_missing_but_not_empty() -> None:
    arguments.check_key(None)
    arguments.check_key("k" * 255)
    for bad in ("", "k" * 256):
        with pytest.raises(ArgumentError, match="idempotency_key"):
            arguments.check_key(bad)


@pytest.mark.parametrize("value", BAD_METADATA, ids=range(len(BAD_METADATA)))
def test_bad_metadata(value: Any) -> None:
    with pytest.raises(ArgumentError, match="metadata"):
        arguments.check_metadata(value)


def test_metadata_is_copied_deeply() -> None:
    given = {"a": [1, {"b": "\\u0000"}]}
    kept = arguments.check_metadata(given)
    given["a"].append(2)
    assert kept == {"a": [1, {"b": "\\u0000"}]}
    assert arguments.check_metadata(CreditMetadata(source="api")) == {"source": "api"}
    assert arguments.check_metadata(None) is None


def test_instants_need_a_time_zone() -> None:
    with pytest.raises(ArgumentError, match="time zone"):
        arguments.check_instant(datetime(2026, 1, 1), name="start")  # noqa: DTZ001
    tokyo = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert arguments.check_instant(tokyo, name="start") == datetime(2026, 1, 1, tzinfo=UTC)
    edge = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
    with pytest.raises(ArgumentError, match="start"):
        arguments.check_instant(edge, name="start")
    with pytest.raises(ArgumentError, match="after end"):
        arguments.check_window(tokyo, tokyo - timedelta(seconds=1))


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda each: repr(type(each).__name__))
async def test_the_store_answers_a_bad_amount_with_a_code_and_keeps_the_reservation(amount: Any) -> None:
    store = MemoryStore()
    await store.add_credits("ann", 100)
    held = await store.reserve_credits("ann", 10, "chat")
    before = await store.get_available("ann"), await store.list_events()
    answers = [
        await store.add_credits("ann", amount),
        await store.reserve_credits("ann", amount, "chat"),
        await store.deduct_credits("ann", str(held.reservation_id), amount),
        await store.charge_credits("ann", amount),
        await store.adjust_credits("ann", amount, direction="debit"),
        await store.transfer_credits("ann", "bob", amount),
        await store.create_team("red", amount),
    ]
    assert {answer.error for answer in answers} == {"invalid_amount"}
    assert (await store.get_available("ann"), await store.list_events()) == before
    assert (await store.get_reservation("ann", str(held.reservation_id))).state == "active"


@pytest.mark.parametrize("value", BAD_IDS, ids=ascii)
async def test_the_store_answers_a_bad_id_with_a_code(value: Any) -> None:
    store = MemoryStore()
    answers = [
        await store.add_credits(value, 1),
        await store.reserve_credits(value, 1, "chat"),
        await store.charge_credits(value, 1),
        await store.transfer_credits("ann", value, 1),
        await store.set_user_plan(value, None),
        await store.create_team(value),
    ]
    assert {answer.error for answer in answers} == {"invalid_argument"}
    with pytest.raises(ArgumentError):
        await store.get_balance(value)
    assert (await store.list_events()).events == ()


@pytest.mark.parametrize("minted", NEVER_MINTED, ids=range(len(NEVER_MINTED)))
async def test_ids_that_were_never_minted_are_not_found(minted: str) -> None:
    store = MemoryStore()
    await store.add_credits("ann", 100)
    await store.reserve_credits("ann", 10, "chat")
    assert (await store.deduct_credits("ann", minted, 1)).error == "reservation_not_found"
    assert (await store.release_reservation("ann", minted)).error == "reservation_not_found"
    assert (await store.refund_credits(minted.replace("rsv_", "txn_"))).error == "transaction_not_found"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl_seconds", 0), ("ttl_seconds", -5), ("ttl_seconds", 86_401), ("ttl_seconds", 1.5), ("ttl_seconds", True),
        ("grace_seconds", -1), ("grace_seconds", 3601), ("overage", "free"), ("overage", None), ("max_settle", -1),
        ("max_settle", 1.0), ("max_concurrent", -1), ("min_balance", -MAX_AMOUNT - 1), ("min_balance", 0.0),
        ("idempotency_key", ""), ("model", ""), ("team_id", " t"), ("feature", 5), ("fingerprint", "\n"),
        ("pricing_version", 1), ("metadata", []),
    ],
)  # fmt: skip
async def test_bad_terms_of_a_reservation(name: str, value: Any) -> None:
    store = MemoryStore()
    await store.add_credits("ann", 100)
    refused = await store.reserve_credits("ann", 1, "chat", **{name: value})
    assert refused.error in ("invalid_argument", "invalid_amount")
    assert (await store.get_available("ann")).held == 0
