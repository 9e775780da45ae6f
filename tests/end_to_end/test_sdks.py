"""The real SDKs against the gateway: they are served, billed and refused without knowing of it."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest

from tests.end_to_end.conftest import Site
from tests.middleware.support import MESSAGES, START, cost_of, scripted

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 50}


def of_openai(site: Site, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=site.url + "/v1", **{"api_key": "key-of-alice", "max_retries": 0, **options})


def of_anthropic(site: Site, **options: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=site.url, **{"api_key": "key-of-alice", "max_retries": 0, **options})


async def test_openai_plain(site: Site) -> None:
    async with of_openai(site) as client:
        answer = await client.chat.completions.with_raw_response.create(**CHAT)
        assert answer.headers["x-ducto-cost"] == str(cost_of(CHAT))
        assert (answer.parse().choices[0].message.content or "").startswith("word1")
        await client.completions.create(model="m", prompt="Once", max_tokens=5)
        await client.responses.create(model="m", input="Once", max_output_tokens=20)
        await client.embeddings.create(model="emb", input="Once")
    assert len(await site.books.transactions()) == 4
    assert not any(row.estimated for row in await site.books.transactions())


async def test_openai_streams_show_no_trace_of_the_usage_that_we_asked_for(site: Site) -> None:
    async with of_openai(site) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        asked = {"include_usage": True}
        chunks = [
            chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True, stream_options=asked)
        ]
        assert chunks[-1].usage is not None
        events = [event async for event in await client.responses.create(model="m", input="Once", stream=True)]
        assert events[-1].type == "response.completed"
    await settled(site, 3)
    assert not any(row.estimated for row in await site.books.transactions())


async def test_anthropic(site: Site) -> None:
    async with of_anthropic(site) as client:
        answer = await client.messages.create(**CHAT)
        assert answer.usage.output_tokens == 8
        async with client.messages.stream(**CHAT) as stream:
            assert (await stream.get_final_message()).usage.output_tokens == 8
    await settled(site, 2)
    assert await site.books.spent() == 2 * cost_of(CHAT)


async def settled(site: Site, count: int) -> None:
    """An SDK may leave at the last event; the charge is then a moment later."""
    for _ in range(200):
        if len(await site.books.transactions()) >= count and (await site.books.store.get_available("alice")).held == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the calls were not charged in time")


async def test_who_cannot_pay_gets_one_typed_error(site: Site) -> None:
    await site.books.manager.adjust_credits("alice", START - 5, direction="debit", idempotency_key="poor")
    async with of_openai(site, max_retries=2) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(**CHAT, stream=True)
        assert refused.value.status_code == 402
        assert refused.value.code == "insufficient_credits"
    async with of_anthropic(site, max_retries=2) as claude:
        with pytest.raises(anthropic.APIStatusError) as denied:
            await claude.messages.create(**CHAT)
        assert denied.value.status_code == 402
        assert denied.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
    assert site.simulator.requests == []


async def test_a_wrong_key_is_an_authentication_error(site: Site) -> None:
    async with of_openai(site, api_key="key-of-mallory") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**CHAT)
    async with of_anthropic(site, api_key="key-of-mallory") as claude:
        with pytest.raises(anthropic.AuthenticationError):
            await claude.messages.create(**CHAT)


async def test_a_provider_error_is_retried_and_only_the_success_is_charged(site: Site) -> None:
    scripted(site.simulator, status=500)
    scripted(site.simulator, status=429, retry_after_seconds=0)
    async with of_openai(site, max_retries=2) as client:
        await client.chat.completions.create(**CHAT)
    assert len(site.simulator.requests) == 3
    assert await site.books.spent() == cost_of(CHAT)


@pytest.mark.parametrize("stream", [False, True])
async def test_retries_with_one_key_are_answered_again(site: Site, stream: bool) -> None:
    key = {"Idempotency-Key": "once"}
    async with of_openai(site) as client:

        async def text() -> str:
            answer: Any = await client.chat.completions.create(**CHAT, stream=stream, extra_headers=key)
            if not stream:
                return str(answer.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

        first = await text()
        await settled(site, 1)
        assert await text() == first
    assert len(site.simulator.requests) == 1
    assert await site.books.spent() == cost_of(CHAT)


async def test_a_client_that_leaves_within_a_stream_is_charged(site: Site) -> None:
    scripted(site.simulator, chunk_delay_seconds=0.02)
    async with of_openai(site) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        async for _ in stream:
            break
        await stream.close()
    await settled(site, 1)
    assert await site.books.spent() == cost_of(CHAT)


async def test_many_calls_at_once(site: Site) -> None:
    async with of_openai(site) as client, of_anthropic(site) as claude:
        await asyncio.gather(
            *(client.chat.completions.create(**CHAT) for _ in range(20)),
            *(claude.messages.create(**CHAT) for _ in range(20)),
        )
    assert await site.books.spent() == 40 * cost_of(CHAT)
