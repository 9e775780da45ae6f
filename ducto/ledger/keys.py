"""Idempotency keys: a call that was answered under a key is answered the same way again."""

from __future__ import annotations

from typing import TypeVar

from ducto.errors import IdempotencyMismatchError
from ducto.ledger.state import Account, KeyRecord
from ducto.models import Outcome

__all__ = ["COMPARED", "check_same", "recall", "remember"]

Reply = TypeVar("Reply", bound=Outcome)

#: Which arguments must be the same for a call to be the same call, by operation. Never metadata, ttl, floor, policy
#: or trace ids: those may differ between a call and its retry.
COMPARED: dict[str, tuple[str, ...]] = {
    "reserve": ("amount", "fingerprint", "operation_type", "model"),
    "deduct": ("amount", "reservation_id", "model"),
    "charge": ("amount", "model"),
    "add": ("amount",),
    "adjust": ("amount",),
    "refund": ("amount", "transaction_id"),
    "transfer": ("amount", "to_user_id"),
    "allowance": ("amount",),
    "create_team": ("initial_balance", "name"),
    "publish": ("config", "label"),
}


def check_same(operation: str, key: str, first: tuple[object, ...], now: tuple[object, ...]) -> None:
    """Raise `IdempotencyMismatchError`, naming the fields, unless both calls have the same arguments."""
    if first == now:
        return
    differing = tuple(name for name, was, is_now in zip(COMPARED[operation], first, now, strict=True) if was != is_now)
    raise IdempotencyMismatchError(
        f"The idempotency key {key!r} was used before with another {' and '.join(differing)}; "
        "use a new key for a new call.",
        mismatch=differing,
    )


def recall(
    account: Account, acting: str, operation: str, key: str | None, arguments: tuple[object, ...]
) -> Outcome | None:
    """The answer that the same call got before under `key`; `None` where the key is new or not given.

    The scope of a key is the account, the acting user (of a team operation, else empty) and the operation.
    """
    record = None if key is None else account.keys.get((acting, operation, key))
    if record is None or key is None:
        return None
    check_same(operation, key, record.arguments, arguments)
    return record.reply


def remember(
    account: Account,
    acting: str,
    operation: str,
    key: str | None,
    arguments: tuple[object, ...],
    reply: Outcome,
) -> None:
    if key is not None:
        account.keys[(acting, operation, key)] = KeyRecord(arguments, reply)


def replayed(reply: Reply) -> Reply:
    """The first answer again, marked as such."""
    return reply.model_copy(update={"replayed": True})
