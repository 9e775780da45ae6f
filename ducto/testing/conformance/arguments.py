"""Checks of arguments: which amounts, ids, keys and metadata are refused, and that nothing is written then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from ducto.errors import ArgumentError
from ducto.models import CreditMetadata, Outcome
from ducto.stores.base import CreditStore
from ducto.testing.conformance.helpers import (
    MAX_AMOUNT,
    books,
    charge,
    equal,
    expect,
    fund,
    hold,
    key,
    known,
    raises,
    refused,
    rows,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import FREE, on_plan
from ducto.testing.harness import Harness

#: Not one of these is an amount; none may be converted to one.
BAD_AMOUNTS: tuple[Any, ...] = (
    -1,
    -MAX_AMOUNT,
    MAX_AMOUNT + 1,
    2**63,
    True,
    False,
    0.4,
    1.0,
    float("nan"),
    float("inf"),
    Decimal(5),
    "5",
    b"5",
    [5],
)
_PADDING = "\u0020\u00a0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000"
BAD_TEXTS: tuple[Any, ...] = (
    "",
    *(f"{pad}a" for pad in _PADDING),
    *(f"a{pad}" for pad in _PADDING),
    *(f"a{control}b" for control in "\x00\x01\t\n\r\x1f\x7f\x80\x85\x9f"),
    "a\ud800b",
    "\udfff",
    5,
    True,
    b"bytes",
    ["list"],
)
BAD_IDS: tuple[Any, ...] = (*BAD_TEXTS, None, "a" * 201, "\u00e9" * 101, "\U0001f600" * 51, "a" * 10_240)
BAD_KEYS: tuple[Any, ...] = (*BAD_TEXTS, "a" * 256, "\u00e9" * 128)
#: Each is valid, and each is another id than its neighbour.
GOOD_IDS: tuple[str, ...] = (
    "caf\u00e9",
    "cafe\u0301",
    "CAF\u00c9",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u0633\u062a\u062e\u062f\u0645",
    "\u202eabc",
    "a b",
    "a\u3000b",
    "a\u200bb",
    "\ufeffa",
    "'; DROP TABLE accounts; --",
    '{"a": 1}',
    "%s %(a)s $1 \\x00",
    "../../etc/passwd",
)

Call = Callable[[Any], Awaitable[Outcome]]


async def _amount_verbs(store: CreditStore) -> tuple[str, str, dict[str, Call]]:
    """A payer with 50 credits, a team with 100, and every verb with an amount."""
    payer, friend = await fund(store, 100), user()
    transaction_id = await charge(store, payer, 50)
    reservation_id = await hold(store, payer, 10)
    team_id = await team_of(store, payer, credits=100)
    verbs: dict[str, Call] = {
        "add_credits": lambda bad: store.add_credits(payer, bad),
        "adjust_credits credit": lambda bad: store.adjust_credits(payer, bad, direction="credit"),
        "adjust_credits debit": lambda bad: store.adjust_credits(payer, bad, direction="debit", force=True),
        "charge_credits": lambda bad: store.charge_credits(payer, bad),
        "charge_credits forced": lambda bad: store.charge_credits(payer, bad, force=True),
        "reserve_credits": lambda bad: store.reserve_credits(payer, bad, "chat", min_balance=0),
        "deduct_credits": lambda bad: store.deduct_credits(payer, reservation_id, bad),
        "transfer_credits": lambda bad: store.transfer_credits(payer, friend, bad),
        "refund_credits": lambda bad: store.refund_credits(transaction_id, bad),
        "deduct_team": lambda bad: store.deduct_team(team_id, payer, bad),
        "add_team_credits": lambda bad: store.add_team_credits(team_id, bad),
        "create_team": lambda bad: store.create_team("Team", bad),
    }
    return payer, team_id, verbs


async def check_bad_amounts_are_refused_everywhere(harness: Harness) -> None:
    """Negative, fractional, NaN, infinite, too large, or not an int: `invalid_amount`, and nothing changes."""
    store = harness.store
    payer, team_id, verbs = await _amount_verbs(store)
    before = (len(await rows(store, payer)), len(await rows(store, team_id=team_id)))
    for verb, call in verbs.items():
        for bad in BAD_AMOUNTS:
            refused(await call(bad), "invalid_amount", f"{verb} of {bad!r}")
    equal((len(await rows(store, payer)), len(await rows(store, team_id=team_id))), before, "ledger rows")
    await books(store, payer, "after bad amounts", balance=50, available=40)


async def check_fractions_are_refused_and_not_truncated(harness: Harness) -> None:
    """A price below one credit must not become 0 on its way into the books: only whole credits come in."""
    store = harness.store
    payer = await fund(store, 10)
    fractions: tuple[Any, ...] = (0.4, 0.9999, Decimal("0.5"))
    for fraction in fractions:
        refused(await store.charge_credits(payer, fraction), "invalid_amount", f"charge of {fraction!r}")
        refused(await store.reserve_credits(payer, fraction, "chat"), "invalid_amount", f"reserve of {fraction!r}")
    await books(store, payer, "after fractions", balance=10)


async def check_bad_amounts_raise_where_there_is_no_error_field(harness: Harness) -> None:
    store = harness.store
    payer = await on_plan(store, FREE)
    for bad in BAD_AMOUNTS:
        await raises(ArgumentError, store.increment_usage_window(payer, FREE, bad), f"allowance booking of {bad!r}")
        await raises(ArgumentError, store.check_spend_cap(payer, amount=bad), f"check_spend_cap for {bad!r}")
    equal((await store.check_allowance(payer)).used, 0, "allowance used after refusals")


async def check_bad_floors_and_bounds_are_refused(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    codes = ("invalid_amount", "invalid_argument")
    bad_values: tuple[Any, ...] = (True, 1.5, "5", MAX_AMOUNT + 1, -MAX_AMOUNT - 1, float("nan"))
    for bad in bad_values:
        refused(await store.reserve_credits(payer, 1, "chat", min_balance=bad), codes, f"reserve, floor {bad!r}")
        refused(await store.charge_credits(payer, 1, min_balance=bad), codes, f"charge, floor {bad!r}")
        refused(
            await store.reserve_credits(payer, 1, "chat", max_settle=bad),
            codes,
            f"reserve, max_settle {bad!r}",
        )
        refused(
            await store.reserve_credits(payer, 1, "chat", max_concurrent=bad),
            codes,
            f"max_concurrent {bad!r}",
        )
        refused(await store.reserve_credits(payer, 1, "chat", ttl_seconds=bad), codes, f"ttl_seconds {bad!r}")
    await books(store, payer, "after bad floors", balance=100)


async def check_bad_user_ids_are_refused(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for bad in BAD_IDS:
        for verb, result in (
            ("add_credits", await store.add_credits(bad, 5)),
            ("reserve_credits", await store.reserve_credits(bad, 0, "chat")),
            ("charge_credits", await store.charge_credits(bad, 5, force=True)),
            ("transfer_credits", await store.transfer_credits(payer, bad, 5)),
            ("set_user_plan", await store.set_user_plan(bad, None)),
        ):
            refused(result, "invalid_argument", f"{verb} for the user {bad!r}")
        await raises(ArgumentError, store.get_balance(bad), f"get_balance of {bad!r}")
        await raises(ArgumentError, store.check_allowance(bad), f"check_allowance of {bad!r}")
        await raises(ArgumentError, store.get_user_plan(bad), f"get_user_plan of {bad!r}")
    await books(store, payer, "after bad ids", balance=100)


async def check_bad_texts_are_refused_in_every_field(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for bad in BAD_TEXTS:
        for field, result in (
            ("operation_type", await store.reserve_credits(payer, 1, bad)),
            ("model", await store.reserve_credits(payer, 1, "chat", model=bad)),
            ("feature", await store.reserve_credits(payer, 1, "chat", feature=bad)),
            ("pricing_version", await store.reserve_credits(payer, 1, "chat", pricing_version=bad)),
            (
                "fingerprint",
                await store.reserve_credits(payer, 1, "chat", fingerprint=bad, idempotency_key=key()),
            ),
            (
                "attempt_id",
                await store.reserve_credits(payer, 1, "chat", attempt_id=bad, idempotency_key=key()),
            ),
            ("team_id", await store.reserve_credits(payer, 1, "chat", team_id=bad)),
            ("model of a charge", await store.charge_credits(payer, 1, model=bad)),
        ):
            refused(result, "invalid_argument", f"{field} {bad!r}")
    await books(store, payer, "after bad texts", balance=100)


async def check_bad_keys_are_refused(harness: Harness) -> None:
    """An empty key is no key but a mistake."""
    store = harness.store
    payer = await fund(store, 100)
    transaction_id, reservation_id = await charge(store, payer, 10), await hold(store, payer, 10)
    for bad in BAD_KEYS:
        for verb, result in (
            ("add_credits", await store.add_credits(payer, 5, idempotency_key=bad)),
            ("charge_credits", await store.charge_credits(payer, 5, idempotency_key=bad)),
            ("reserve_credits", await store.reserve_credits(payer, 5, "chat", idempotency_key=bad)),
            ("deduct_credits", await store.deduct_credits(payer, reservation_id, 5, bad)),
            ("refund_credits", await store.refund_credits(transaction_id, 5, idempotency_key=bad)),
        ):
            refused(result, "invalid_argument", f"{verb} under the key {bad!r}")
    await books(store, payer, "after bad keys", balance=90, available=80)


async def check_lengths_are_counted_in_bytes(harness: Harness) -> None:
    """An id has 1..200 bytes of UTF-8, a key 1..255."""
    store = harness.store
    for tail in ("a" * 168, "\u00e9" * 84, "\U0001f600" * 42):
        payer = user("u")[2:] + tail
        equal(len(payer.encode()), 200, "length of the id")
        expect(await store.add_credits(payer, 10), "adding to an id of 200 bytes")
        await books(store, payer, "an id of 200 bytes", balance=10)
    payer = await fund(store, 10)
    for long_key in ("k" * 255, "\u00e9" * 127 + "k"):
        first = expect(await store.charge_credits(payer, 1, idempotency_key=long_key), "a key of 255 bytes")
        again = await store.charge_credits(payer, 1, idempotency_key=long_key)
        equal((first.replayed, again.replayed), (False, True), "a key of 255 bytes, twice")


async def check_ids_are_compared_byte_by_byte(harness: Harness) -> None:
    """No id is normalised, folded or trimmed: NFC and NFD spellings are two users."""
    store, mark = harness.store, user("id")
    ids = [f"{good} {mark}" for good in GOOD_IDS]
    for amount, payer in enumerate(ids, start=1):
        expect(await store.add_credits(payer, amount), f"adding to {payer!r}")
    for amount, payer in enumerate(ids, start=1):
        await books(store, payer, f"the user {payer!r}", balance=amount)
        equal((await rows(store, payer))[0].user_id, payer, "user_id of the row, byte by byte")


async def check_keys_are_compared_byte_by_byte(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for good in GOOD_IDS:
        result = expect(await store.charge_credits(payer, 1, idempotency_key=good), f"charge under {good!r}")
        equal(result.replayed, False, f"replayed under the key {good!r}")
    await books(store, payer, "one charge per key", balance=100 - len(GOOD_IDS))


async def check_metadata_that_cannot_be_stored_is_refused(harness: Harness) -> None:
    """NUL and lone surrogates are no text of any database, wherever they hide."""
    store = harness.store
    payer = await fund(store, 100)
    for bad in ("a\x00b", "a\ud800b"):
        for metadata in ({"note": bad}, {bad: 1}, {"deep": [{"deeper": bad}]}):
            refused(
                await store.charge_credits(payer, 1, "charge", metadata),
                "invalid_argument",
                f"metadata {metadata!r}",
            )
    await books(store, payer, "after bad metadata", balance=100)


async def check_metadata_comes_back_as_it_was(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    metadata: dict[str, Any] = {
        "request_id": "r-1",
        "text": "caf\u00e9 cafe\u0301 \U0001f600 \u0645",
        "list": [1, -2, True, None, "x"],
        "deep": {"a": {"b": {}}},
    }
    expect(await store.charge_credits(payer, 1, "charge", metadata), "charge with metadata")
    equal((await rows(store, payer))[0].metadata, metadata, "metadata of the row")


async def check_metadata_is_json(harness: Harness) -> None:
    """What one store could keep and another could not, none takes."""
    store = harness.store
    payer = await fund(store, 100)
    not_json: tuple[Any, ...] = (
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": b"bytes"},
        {"x": object()},
        ["no", "mapping"],
        "text",
    )
    for metadata in not_json:
        refused(
            await store.charge_credits(payer, 1, "charge", metadata),
            "invalid_argument",
            f"metadata {metadata!r}",
        )
    await books(store, payer, "after bad metadata", balance=100)


async def check_metadata_may_be_a_model(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    metadata = CreditMetadata.model_validate({"request_id": "r-1", "tags": {"a": "b"}, "extra": 7})
    expect(await store.charge_credits(payer, 1, "charge", metadata), "charge with CreditMetadata")
    equal(
        (await rows(store, payer))[0].metadata,
        {"request_id": "r-1", "tags": {"a": "b"}, "extra": 7},
        "metadata of the row: what was set, extras included",
    )


async def check_metadata_is_the_rows_own_copy(harness: Harness) -> None:
    """What a caller does to its dict afterwards changes no ledger."""
    store = harness.store
    payer = await fund(store, 100)
    metadata: dict[str, Any] = {"list": [1]}
    expect(await store.charge_credits(payer, 1, "charge", metadata), "charge")
    metadata["list"].append(2)
    metadata["late"] = True
    equal((await rows(store, payer))[0].metadata, {"list": [1]}, "metadata of the row after the caller's edit")
    given = (await rows(store, payer))[0].metadata
    known(given, "metadata")["list"].append(3)
    equal((await rows(store, payer))[0].metadata, {"list": [1]}, "metadata of the row after a reader's edit")
