"""`Idempotency-Key` of a request: read strictly, and answered again once its call was charged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import Send

from ducto import arguments
from ducto.errors import AlreadySettledError, ArgumentError, DuctoError
from ducto.manager import CreditManager
from ducto.meter import MAX_KEY_ATTEMPTS
from ducto.middleware.answers import AnswerCache, KeptAnswer
from ducto.middleware.error_bodies import Refusal
from ducto.middleware.headers import COST, IDEMPOTENCY_KEY, REPLAYED, RESERVATION, header_values
from ducto.middleware.identity import Identity
from ducto.models import Transaction

__all__ = [
    "answer_key",
    "fingerprint",
    "keep",
    "kept_answer",
    "read_key",
    "receipt_of",
    "send_again",
    "settled_refusal",
]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: A cache that is slower than this is done without.
CACHE_SECONDS = 1.0


def read_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The request's key, `None` if it has none. Raises `ArgumentError` for several, and for what cannot be a key."""
    values = header_values(headers, IDEMPOTENCY_KEY)
    if not values:
        return None
    if len(values) > 1:
        raise ArgumentError("Send the header Idempotency-Key once.", field="Idempotency-Key")
    try:
        key = values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise ArgumentError("Idempotency-Key must be UTF-8.", field="Idempotency-Key") from None
    # The attempts of a key are told apart by a number after it, which has to fit in too.
    arguments.check_key(key)
    arguments.check_key(f"{key}:{MAX_KEY_ATTEMPTS}")
    return key


def fingerprint(body: bytes) -> str:
    """What tells two bodies apart: the SHA-256 of the bytes as they were sent."""
    return hashlib.sha256(body).hexdigest()


def answer_key(identity: Identity, key: str, reservation_id: str) -> str:
    """The name of a call's answer in the cache: no two users, teams, keys or calls have the same."""
    scope = [identity.user_id, identity.team_id, key, reservation_id]
    return hashlib.sha256(json.dumps(scope).encode()).hexdigest()


async def keep(answers: AnswerCache, key: str, answer: KeptAnswer) -> None:
    """Put an answer; a cache that fails costs the call nothing."""
    try:
        async with asyncio.timeout(CACHE_SECONDS):
            await answers.put(key, answer)
    except Exception:
        logger.exception("An answer could not be kept; a repeated request is told that it was charged already.")


async def kept_answer(
    answers: AnswerCache | None, identity: Identity, key: str | None, settled: AlreadySettledError
) -> KeptAnswer | None:
    """The answer of the charged call that `settled` speaks of."""
    reservation_id = settled.details.get("reservation_id")
    if answers is None or key is None or not isinstance(reservation_id, str):
        return None
    try:
        async with asyncio.timeout(CACHE_SECONDS):
            return await answers.get(answer_key(identity, key, reservation_id))
    except Exception:
        logger.exception("The kept answers cannot be read; the caller is told that the call was charged already.")
        return None


async def send_again(
    send: Send, answer: KeptAnswer, settled: AlreadySettledError, *, receipt: Transaction | None
) -> None:
    """Answer with what was answered before."""
    headers = [*answer.headers, (REPLAYED, b"true")]
    headers.append((RESERVATION, str(settled.details.get("reservation_id", "")).encode()))
    if receipt is not None:
        headers.append((COST, str(receipt.charged).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def receipt_of(manager: CreditManager, settled: AlreadySettledError) -> Transaction | None:
    """The ledger row of the charged call, where it can be had."""
    transaction_id = settled.details.get("transaction_id")
    if not isinstance(transaction_id, str):
        return None
    try:
        return await manager.get_transaction(transaction_id)
    except DuctoError:
        logger.warning("The receipt of transaction %s cannot be read.", transaction_id)
        return None


def settled_refusal(settled: AlreadySettledError, receipt: Transaction | None) -> Refusal:
    """409: the call was charged, and its answer is not kept any more."""
    details: Mapping[str, Any] = settled.details
    if receipt is not None:
        told = {
            "transaction_id": receipt.transaction_id,
            "reservation_id": receipt.reservation_id,
            "charged": receipt.charged,
            "model": receipt.model,
            "created_at": receipt.created_at,
        }
        details = {**details, "receipt": told}
    return Refusal(
        status=settled.http_status,
        code=settled.code,
        message="The call with this idempotency key was completed and charged, but its answer is not kept any more; "
        "use a new key to call again.",
        details=details,
    )
