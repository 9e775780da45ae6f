"""One call for each hostile text, which stands in one argument of one verb; and what a store answers, comparable."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from decimal import Decimal
from math import inf
from random import Random
from typing import Any

from ducto.errors import DuctoError
from ducto.stores.base import CreditStore
from tests.hostile.values import hostile_metadata

__all__ = ["SLOTS", "Call", "answer_to", "comparable"]

#: Which argument is hostile: of verbs that travel together in batches, and of the dearer ones that go alone.
_BATCHED = (
    "user of add",
    "user of charge",
    "key of charge",
    "model",
    "operation",
    "user of reserve",
    "key of deduct",
    "reservation",
    "member",
    "feature",
    "fingerprint",
    "pricing version",
)
_ALONE = ("metadata", "transaction", "team", "plan", "receiver", "cursor", "cap")
SLOTS = (*_BATCHED, *_BATCHED, *_ALONE)
#: Minted by the store, or moments of its clock.
_OF_THE_STORE = frozenset(
    {
        "transaction_id",
        "reservation_id",
        "refunded_transaction_id",
        "expires_at",
        "message",
        "created_at",
        "booked_at",
        "stable_until",
    }
)


@dataclass(frozen=True)
class Call:
    """The hostile `text` in `slot`. Everything else is the call's own, so that calls may run in any order."""

    number: int
    slot: str
    text: str
    metadata: Any

    @classmethod
    def of(cls, number: int, text: str, random: Random) -> Call:
        slot = SLOTS[number % len(SLOTS)]
        return cls(number, slot, text, hostile_metadata(random, text) if slot == "metadata" else {"note": "n"})


async def answer_to(store: CreditStore, call: Call, *, team: str) -> dict[str, Any]:
    """What the store answers to the call, to its repetition, and what it says of the account afterwards."""
    owner = call.text if call.slot in ("user of add", "user of charge", "user of reserve") else f"user-{call.number}"
    told = {"first": await _told(_made(store, call, owner, team))}
    if call.slot in ("user of charge", "key of charge", "fingerprint"):
        told["again"] = await _told(_made(store, call, owner, team))
    # Each read is a round trip of its own, so that they are dearer than all of the above.
    sampled = call.number // len(SLOTS) % 4 == 0
    if call.slot == "metadata" or (sampled and call.slot in ("user of add", "user of charge")):
        told["balance"] = await _told(store.get_balance(owner))
    if call.slot == "metadata" or (sampled and call.slot in ("user of add", "model", "operation")):
        told["rows"] = await _told(store.list_transactions(owner, limit=2))
    return told


async def _made(store: CreditStore, call: Call, owner: str, team: str) -> Any:
    text, key = call.text, f"key-{call.number}"
    match call.slot:
        case "user of add":
            return await store.add_credits(owner, 5, "grant", idempotency_key=key)
        case "user of charge" | "metadata":
            return await store.charge_credits(owner, 7, "chat", call.metadata, idempotency_key=key, force=True)
        case "key of charge":
            return await store.charge_credits(owner, 7, "chat", idempotency_key=text, force=True)
        case "model":
            return await store.charge_credits(owner, 7, model=text, idempotency_key=key, force=True)
        case "operation":
            return await store.charge_credits(owner, 7, text, idempotency_key=key, force=True)
        case "user of reserve":
            return await store.reserve_credits(owner, 0, "chat", min_balance=0, idempotency_key=key)
        case "key of deduct":
            held = await store.reserve_credits(owner, 0, "chat", min_balance=0, idempotency_key=key)
            return await store.deduct_credits(owner, held.reservation_id or "", 3, text)
        case "reservation":
            return await store.deduct_credits(owner, text, 3)
        case "transaction":
            return await store.refund_credits(text, 1, idempotency_key=key)
        case "team":
            return await store.deduct_team(text, owner, 1, idempotency_key=key, force=True)
        case "member":
            return await store.deduct_team(team, text, 1, idempotency_key=key)
        case _:
            return await _rarer(store, call, owner)


async def _rarer(store: CreditStore, call: Call, owner: str) -> Any:
    text, key = call.text, f"key-{call.number}"
    match call.slot:
        case "plan":
            return await store.set_user_plan(owner, text)
        case "feature":
            return await store.reserve_credits(owner, 0, "chat", min_balance=0, feature=text, idempotency_key=key)
        case "fingerprint":
            return await store.reserve_credits(owner, 0, "chat", min_balance=0, fingerprint=text, idempotency_key=key)
        case "receiver":
            return await store.transfer_credits(owner, text, 1, min_balance=-100, idempotency_key=key)
        case "cursor":
            return await store.list_transactions(owner, cursor=text)
        case "cap":
            return await store.check_spend_cap(owner, text, 1)
        case "pricing version":
            return await store.charge_credits(owner, 7, pricing_version=text, idempotency_key=key, force=True)
        case _:
            raise AssertionError(call.slot)


async def _told(asked: Awaitable[Any]) -> Any:
    """The answer without what is the store's own, or what was raised."""
    try:
        answered = await asked
    except DuctoError as error:
        return {"raised": type(error).__name__, "error": error.code}
    return _plain(answered.model_dump(mode="json"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        # Metadata is the caller's: all of it is compared.
        return {
            name: comparable(one) if name == "metadata" else _plain(one)
            for name, one in value.items()
            if name not in _OF_THE_STORE
        }
    return [_plain(one) for one in value] if isinstance(value, list) else value


def comparable(value: Any) -> Any:
    """Large floats as whole numbers: JSON has one kind of number, and `1e308` may come back as all its digits."""
    if isinstance(value, dict):
        return {name: comparable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [comparable(one) for one in value]
    return int(Decimal(repr(value))) if isinstance(value, float) and 2**53 < abs(value) < inf else value
