"""Calls through a real LiteLLM proxy: whatever becomes of one, it is charged once or not, and no hold is left."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from ducto.testing.simulator import Fault
from tests.litellm.support import CHAT, MESSAGES, Account, chat_body, scripted

ROUTES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": MESSAGES, "max_tokens": 50},
    "/v1/completions": {"model": "m", "prompt": "Once", "max_tokens": 50},
    "/v1/responses": {"model": "m", "input": "Once upon", "max_output_tokens": 50},
    "/v1/messages": {"model": "claude", "messages": MESSAGES, "max_tokens": 50},
    "/v1/embeddings": {"model": "emb", "input": "Once upon"},
    "/v1beta/models/m:generateContent": {
        "contents": [{"role": "user", "parts": [{"text": "Once upon"}]}],
        "generationConfig": {"maxOutputTokens": 50},
    },
    "/anthropic/v1/messages": {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 50},
    "/openai/v1/chat/completions": {"model": "gpt-4o-mini", "messages": MESSAGES, "max_tokens": 50},
}
STREAMS = {
    **{path: {**body, "stream": True} for path, body in ROUTES.items() if "emb" not in path and "beta" not in path},
    "/v1beta/models/m:streamGenerateContent": ROUTES["/v1beta/models/m:generateContent"],
}


@pytest.mark.parametrize("path", ROUTES)
async def test_plain_answer_is_charged_by_its_usage(account: Account, path: str) -> None:
    answer = await account.post(path, ROUTES[path])
    assert answer.status_code == 200, answer.text
    assert await account.spent() == account.cost()


@pytest.mark.parametrize("path", STREAMS)
async def test_stream_is_charged_by_its_usage(account: Account, path: str) -> None:
    answer = await account.post(path, STREAMS[path])
    assert answer.status_code == 200, answer.text
    assert "word8" in answer.text
    assert await account.spent() == account.cost()


async def test_charge_is_booked_before_the_answer_is_there(account: Account) -> None:
    """So a proxy that ends at any moment after it has lost nothing."""
    await account.chat()
    assert len(await account.charges()) == 1
    await account.chat(stream=True)
    assert len(await account.charges()) == 2
    await account.spent(rows=2)


async def test_retry_is_one_call(account: Account) -> None:
    scripted(account, Fault(status=500))
    answer = await account.chat(model="flaky")
    assert answer.status_code == 200
    assert len(account.site.simulator.requests) == 2
    assert await account.spent() == account.cost()


@pytest.mark.parametrize("stream", [False, True])
async def test_fallback_is_charged_at_the_price_of_the_model_that_answered(account: Account, stream: bool) -> None:
    scripted(account, Fault(status=500), Fault(status=500))
    answer = await account.chat(model="flaky", stream=stream)
    assert answer.status_code == 200
    assert account.reply().body["model"] == "gpt-4o"
    assert await account.spent() == account.cost(input_credits=10, output_credits=20)


async def test_a_client_cannot_fall_back_to_a_dearer_model_at_the_price_of_a_cheap_one(account: Account) -> None:
    scripted(account, Fault(status=500))
    assert (await account.chat(fallbacks=["backup"])).status_code == 200
    assert account.reply().body["model"] == "gpt-4o"
    assert await account.spent() == account.cost(input_credits=10, output_credits=20)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_final_failure_costs_nothing(account: Account, status: int, stream: bool) -> None:
    scripted(account, Fault(status=status))
    answer = await account.chat(stream=stream)
    assert answer.status_code >= 400
    assert await account.spent(rows=0) == 0


async def test_failure_of_all_attempts_and_fallbacks_costs_nothing(account: Account) -> None:
    scripted(account, Fault(status=500), Fault(status=500), Fault(status=500))
    answer = await account.chat(model="flaky")
    assert answer.status_code == 500
    assert len(account.site.simulator.requests) == 3
    assert await account.spent(rows=0) == 0


async def test_failed_pass_through_costs_nothing(account: Account) -> None:
    scripted(account, Fault(status=400))
    answer = await account.post("/anthropic/v1/messages", ROUTES["/anthropic/v1/messages"])
    assert answer.status_code == 400
    assert await account.spent(rows=0) == 0


async def test_stream_that_the_provider_cuts_is_charged_for_what_was_delivered(account: Account) -> None:
    scripted(account, Fault(chunks=40, cut_after_bytes=4000, chunk_delay_seconds=0.01))
    answer = await account.chat(stream=True)
    assert "error" in answer.text
    assert 0 < await account.spent() < account.cost()
    (row,) = await account.charges()
    assert row.estimated
    assert row.charged >= 2 * answer.text.count('"content":"word')


async def test_stream_that_is_cut_before_it_delivers_costs_nothing(account: Account) -> None:
    scripted(account, Fault(cut_after_bytes=10))
    answer = await account.chat(stream=True)
    assert answer.status_code == 500
    assert await account.spent(rows=0) == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
async def test_client_who_leaves_within_a_stream_pays_for_what_was_delivered(account: Account, path: str) -> None:
    scripted(account, Fault(chunks=40, chunk_delay_seconds=0.05))
    async with account.http.stream("POST", path, json=STREAMS[path]) as answer:
        async for line in answer.aiter_lines():
            if "word5" in line:
                break
    assert 0 < await account.spent() < account.cost()
    (row,) = await account.charges()
    assert row.estimated


async def test_client_who_leaves_before_the_first_chunk(account: Account) -> None:
    """The provider had begun, so the input is charged; LiteLLM tells of it by no other hook than the iterator's.

    LiteLLM 1.109 waits for a first chunk that never comes.
    """
    scripted(account, Fault(hang_after_events=0))
    with pytest.raises(httpx.ReadTimeout):
        await account.post(CHAT, chat_body(stream=True), timeout=0.7)
    assert 0 < await account.spent() < 60
    (row,) = await account.charges()
    assert row.estimated


async def test_client_who_leaves_a_stream_before_the_provider_has_begun(account: Account) -> None:
    scripted(account, Fault(delay_seconds=1.0, chunk_delay_seconds=0.1))
    with pytest.raises(httpx.ReadTimeout):
        await account.post(CHAT, chat_body(stream=True), timeout=0.4)
    assert 0 < await account.spent() < 60


async def test_client_who_leaves_before_a_plain_answer_pays_for_it(account: Account) -> None:
    """LiteLLM lets such a call run to its end."""
    scripted(account, Fault(delay_seconds=1.0))
    with pytest.raises(httpx.ReadTimeout):
        await account.post(CHAT, chat_body(), timeout=0.3)
    assert await account.spent() == account.cost()


async def test_client_who_leaves_within_a_passed_through_stream_pays(account: Account) -> None:
    scripted(account, Fault(chunks=40, chunk_delay_seconds=0.05))
    path = "/anthropic/v1/messages"
    async with account.http.stream("POST", path, json=STREAMS[path]) as answer:
        async for line in answer.aiter_lines():
            if "word5" in line:
                break
    assert 0 < await account.spent() < account.cost()


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_from_the_cache_is_free_by_default(account: Account, stream: bool) -> None:
    body = chat_body(stream=stream, cache={"use-cache": True})
    first = await account.post(CHAT, body)
    cost = await account.spent()
    again = await account.post(CHAT, body)
    assert "word8" in first.text
    assert "word8" in again.text
    assert len(account.site.simulator.requests) == 1
    assert await account.spent() == cost == account.cost()


async def test_stream_without_usage_is_not_free(account: Account) -> None:
    scripted(account, Fault(usage="missing"))
    await account.chat(stream=True)
    assert await account.spent() > 0


async def test_model_is_priced_by_its_deployment_where_its_public_name_has_no_price(account: Account) -> None:
    assert (await account.chat(model="by-deployment")).status_code == 200
    assert await account.spent() == account.cost(input_credits=3, output_credits=4)


async def test_cache_writes_are_charged_by_their_lifetime(account: Account) -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    }
    # 10 fresh, 15 written at 2, 5 written for an hour at 4, 30 read at a half, and 8 of output at 2.
    expected = 10 + 30 + 20 + 15 + 16
    for path, body in (("/v1/messages", ROUTES["/v1/messages"]), (CHAT, chat_body(model="claude"))):
        scripted(account, Fault(usage_fields=usage))
        before = (await account.store.get_balance(account.user)).balance
        assert (await account.post(path, body)).status_code == 200
        assert before - (await account.store.get_balance(account.user)).balance == expected, await account.charges()
    await account.spent(rows=2)


async def test_many_calls_at_once(account: Account) -> None:
    answers = await asyncio.gather(*(account.chat(stream=number % 2 == 0) for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    replies = [request.reply for request in account.site.simulator.requests]
    assert len(replies) == 20
    expected = sum(reply.input_tokens + 2 * reply.output_tokens for reply in replies if reply is not None)
    assert await account.spent(rows=20) == expected
