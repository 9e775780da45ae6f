"""The ends that LiteLLM does not tell of, and a charge that could not be booked at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from ducto.errors import StoreError
from ducto.manager import CreditManager
from ducto.middleware.admitting import admit, read_request
from ducto.middleware.billing import AnswerFacts
from ducto.middleware.identity import Identity
from ducto.middleware.litellm.calls import CallBook, ProxiedCall
from ducto.middleware.litellm.formats import CHAT, kind_of, request_body
from ducto.middleware.litellm.reading import read_answer, read_logged_answer
from ducto.middleware.litellm.serving import Served
from ducto.middleware.options import CallOptions
from ducto.models import DeductionResult
from ducto.stores.memory import MemoryStore
from tests.litellm.support import MESSAGES, PRICING

GRACE_SECONDS = 0.05
START = 1_000
BODY = {"model": "m", "messages": MESSAGES, "max_tokens": 50}
ANSWER = {"object": "chat.completion", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
COST = 20
OPTIONS = CallOptions(
    unmetered="refuse",
    max_body_bytes=10_000,
    max_answer_bytes=10_000,
    default_output_tokens=100,
    tokenizer=None,
    clamp=None,
    missing_usage=None,
    include_usage=False,
    feature=None,
    operation_type=None,
)


class StumblingStore(MemoryStore):
    """A store that cannot be reached for the next `failures` charges."""

    failures = 0

    async def deduct_credits(self, *arguments: Any, **named: Any) -> DeductionResult:
        if self.failures:
            self.failures -= 1
            raise StoreError("the connection is lost")
        return await super().deduct_credits(*arguments, **named)


@dataclass
class Books:
    store: StumblingStore
    manager: CreditManager
    book: CallBook

    async def call(self) -> ProxiedCall:
        request = await read_request(json.dumps(BODY).encode(), provider=CHAT, manager=self.manager, options=OPTIONS)
        admitted = await admit(request, Identity("alice"), key=None, manager=self.manager, options=OPTIONS)
        call = ProxiedCall(admitted.metered, request, key_hash="alice's key", by_public_name=True)
        self.book.add(call)
        return call

    async def spent(self) -> int:
        standing = await self.store.get_available("alice")
        assert standing.held == 0
        return START - standing.balance


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    store = StumblingStore()
    async with CreditManager(store, maintain_every_seconds=None) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("alice", START, "purchase", idempotency_key="start")
        book = CallBook(
            manager, price="pricing_config", cache_hits="free", missing_usage=None, grace_seconds=GRACE_SECONDS
        )
        yield Books(store, manager, book)
    found = await store.verify()
    assert found.ok, found.faults


def answered(call: ProxiedCall) -> AnswerFacts:
    return AnswerFacts(reading=read_answer(ANSWER, call.request), complete=True)


async def in_a_request(books: Books, **noted: Any) -> ProxiedCall:
    """A call whose request is over, of which the hooks have heard no more than `noted`."""

    async def request() -> ProxiedCall:
        call = await books.call()
        for name, value in noted.items():
            setattr(call, name, value)
        return call

    call = await asyncio.create_task(request())
    await asyncio.sleep(3 * GRACE_SECONDS)
    return call


async def test_call_that_never_left_is_released_after_its_request(books: Books) -> None:
    await in_a_request(books)
    assert await books.spent() == 0


async def test_call_that_was_sent_is_charged_after_its_request(books: Books) -> None:
    await in_a_request(books, sent=True)
    assert await books.spent() > 0


async def test_call_that_still_streams_is_left_alone(books: Books) -> None:
    call = await in_a_request(books, sent=True, streaming=True)
    assert not call.closing
    call.streaming = False
    await asyncio.sleep(3 * GRACE_SECONDS)
    assert await books.spent() > 0


async def test_failure_after_a_deployment_had_answered_is_charged(books: Books) -> None:
    """Another callback may fail a call whose provider is paid."""
    call = await books.call()
    call.answered = answered(call), Served()
    await books.book.release(call)
    assert await books.spent() == COST


async def test_only_the_first_end_counts(books: Books) -> None:
    call = await books.call()
    await asyncio.gather(
        books.book.charge(call, answered(call), Served()),
        books.book.release(call),
        books.book.charge(call, answered(call), Served()),
        books.book.confirm(call),
    )
    assert await books.spent() == COST


async def test_charge_that_failed_is_repeated(books: Books) -> None:
    call = await books.call()
    books.store.failures = 1
    await books.book.charge(call, answered(call), Served())
    assert (await books.store.get_available("alice")).held > 0
    assert books.book.find({"metadata": {"ducto": {"call": call.id}}}, key_hash="alice's key") is call
    await books.book.confirm(call)
    assert await books.spent() == COST
    assert books.book.find({"metadata": {"ducto": {"call": call.id}}}, key_hash="alice's key") is None


async def test_charge_that_failed_is_repeated_without_an_event(books: Books) -> None:
    async def request() -> None:
        call = await books.call()
        books.store.failures = 1
        await books.book.charge(call, answered(call), Served())

    await asyncio.create_task(request())
    await asyncio.sleep(3 * GRACE_SECONDS)
    assert await books.spent() == COST


async def test_request_that_is_admitted_anew_holds_once(books: Books) -> None:
    """After a rate limit the proxy may run its hooks again for another model."""
    await books.call()
    await books.book.forget_earlier()
    second = await books.call()
    await books.book.charge(second, answered(second), Served())
    assert await books.spent() == COST


async def test_mark_is_believed_of_the_same_key_alone(books: Books) -> None:
    call = await books.call()
    mark = {"ducto": {"call": call.id}}
    forged = {"ducto": {"call": call.reservation_id}}
    find = books.book.find
    assert find({"metadata": mark}, key_hash="mallory's key") is None
    assert find({"metadata": forged}, key_hash="alice's key") is None
    assert find({"metadata": forged, "litellm_metadata": mark}, key_hash="alice's key") is call
    assert find({"metadata": mark, "litellm_metadata": forged}, key_hash="alice's key") is call
    await books.book.release(call)
    assert await books.spent() == 0


async def test_passed_through_stream_that_litellm_cannot_read_is_read(books: Books) -> None:
    call = await books.call()
    lines = ['data: {"choices": [{"delta": {"content": "a fish"}, "finish_reason": "stop"}]}']
    last = 'data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}'
    text = "cannot parse chunks to standard response object. Chunks="
    whole = read_logged_answer({"response": text + repr([*lines, last])}, {}, call.request)
    assert whole.complete
    assert whole.reading is not None
    assert whole.reading.usage is not None
    assert (whole.reading.usage.input_tokens, whole.reading.usage.output_tokens) == (10, 5)
    for broken in (repr(lines), "[", "__import__('os')", "7"):
        assert not read_logged_answer({"response": text + broken}, {}, call.request).complete
    await books.book.release(call)


@pytest.mark.parametrize(
    ("call_type", "free"),
    [
        ("moderation", True),
        ("amoderation", True),
        ("afile_content", True),
        ("aget_responses", True),
        ("aretrieve_batch", True),
        ("acreate_batch", False),
        ("image_generation", False),
        ("aspeech", False),
        ("arerank", False),
        ("_arealtime", False),
        ("something_new", False),
        ("pass_through_endpoint", False),
    ],
)
def test_kinds_of_calls(call_type: str, free: bool) -> None:
    assert kind_of(call_type, route="/openai/v1/images/generations") == ("free" if free else None)


def test_request_is_read_without_what_the_proxy_adds() -> None:
    data = {**BODY, "metadata": {"a": 1}, "litellm_call_id": "x", "secret_fields": object(), "model": "public"}
    assert json.loads(request_body(data, model="m")) == BODY
