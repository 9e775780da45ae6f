"""The real SDKs over the transport, async and not: served, charged and refused without knowing of it.

`test_older_sdks.py` runs this file again with the majors before.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest

from ducto.middleware.transport import TransportOptions, metered_transport
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import MESSAGES, PRICING, START, Books, app_sending, cost_of, scripted
from tests.transport.support import (
    ANTHROPIC_LIBRARY,
    CHAT,
    OPENAI_LIBRARIES,
    Tally,
    client_of,
    of_anthropic,
    of_openai,
)

EACH_LIBRARY = pytest.mark.parametrize("library", OPENAI_LIBRARIES)
LOOKUP: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}


@EACH_LIBRARY
async def test_openai_plain(library: str, books: Books, provider: str) -> None:
    async with of_openai(provider, client_of(library, books)) as client:
        answer = await client.chat.completions.with_raw_response.create(**CHAT)
        row = (await books.transactions())[0]
        assert answer.headers["x-ducto-reservation"] == row.reservation_id
        assert row.charged == cost_of(CHAT)
        assert (answer.parse().choices[0].message.content or "").startswith("word1")
        await client.completions.create(model="m", prompt="Once", max_tokens=5)
        await client.responses.create(model="m", input="Once", max_output_tokens=20)
        await client.embeddings.create(model="emb", input="Once")
    assert len(await books.transactions()) == 4
    assert not any(row.estimated for row in await books.transactions())


@EACH_LIBRARY
async def test_openai_streams_show_no_trace_of_the_usage_that_we_asked_for(
    library: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    async with of_openai(provider, client_of(library, books)) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("word1 word2")
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        assert simulator.requests[-1].headers["accept-encoding"] == "identity"
        # The charge is there as soon as the stream has ended.
        assert await books.spent() == cost_of(CHAT)
        asked = {"include_usage": True}
        chunks = [
            chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True, stream_options=asked)
        ]
        assert chunks[-1].usage is not None
        events = [event async for event in await client.responses.create(model="m", input="Once", stream=True)]
        assert events[-1].type == "response.completed"
    assert len(await books.transactions()) == 3
    assert not any(row.estimated for row in await books.transactions())


async def test_the_default_clients_of_the_sdks_take_the_transport(books: Books, provider: str) -> None:
    made: Any = openai.DefaultAsyncHttpxClient
    library = made.__mro__[2 if made.__mro__[1].__module__.startswith("openai") else 1].__module__.partition(".")[0]
    transport: Any = metered_transport(books.manager, user_id="alice", library=library)  # type: ignore[call-overload]
    async with of_openai(provider, made(transport=transport)) as client:
        await client.chat.completions.create(**CHAT)
    claudes: Any = anthropic.DefaultAsyncHttpxClient
    transport = metered_transport(books.manager, user_id="alice", library=ANTHROPIC_LIBRARY)  # type: ignore[call-overload]
    async with of_anthropic(provider, claudes(transport=transport)) as claude:
        await claude.messages.create(**CHAT)
    assert await books.spent() == 2 * cost_of(CHAT)


async def test_anthropic(books: Books, provider: str) -> None:
    async with of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books)) as client:
        assert (await client.messages.create(**CHAT)).usage.output_tokens == 8
        async with client.messages.stream(**CHAT) as stream:
            assert (await stream.get_final_message()).usage.output_tokens == 8
        assert await books.spent() == 2 * cost_of(CHAT)
        raw = await client.messages.with_raw_response.create(**CHAT)
        assert raw.headers["x-ducto-held"] == str(held(CHAT))
        events = [event async for event in await client.messages.create(**CHAT, stream=True)]
        assert events[-1].type == "message_stop"
    assert await books.spent() == 4 * cost_of(CHAT)
    assert not any(row.estimated for row in await books.transactions())


def held(body: dict[str, Any]) -> int:
    """The worst case of a request as the SDKs encode it."""
    return len(json.dumps(body, separators=(",", ":"))) + 2 * int(body["max_tokens"])


@EACH_LIBRARY
async def test_without_an_event_loop_of_its_own(
    library: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    """The sync clients, on a thread; the manager works on this loop."""

    def ask() -> None:
        with of_openai(provider, client_of(library, books, mode="sync"), mode="sync") as client:
            answer = client.chat.completions.with_raw_response.create(**CHAT)
            assert answer.headers["x-ducto-reservation"]
            chunks = list(client.chat.completions.create(**CHAT, stream=True))
            assert all(chunk.choices and chunk.usage is None for chunk in chunks)
            stream = client.responses.create(model="m", input="Once", max_output_tokens=50, stream=True)
            for _ in stream:
                break
            stream.close()

    scripted(simulator)
    scripted(simulator)
    scripted(simulator, hang_after_events=4)
    tally = Tally(books)
    await asyncio.to_thread(ask)
    left, *complete = await books.transactions()
    assert left.estimated
    assert [row.charged for row in complete] == 2 * [cost_of(CHAT)]
    assert await tally.counts(books) == (3, 0, 3)


async def test_anthropic_without_an_event_loop_of_its_own(books: Books, provider: str) -> None:
    def ask() -> None:
        with of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books, mode="sync"), mode="sync") as client:
            assert client.messages.create(**CHAT).usage.output_tokens == 8
            with client.messages.stream(**CHAT) as stream:
                assert "".join(stream.text_stream).startswith("word1 ")

    await asyncio.to_thread(ask)
    assert await books.spent() == 2 * cost_of(CHAT)


@EACH_LIBRARY
@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_who_cannot_pay_gets_one_typed_error(
    library: str, mode: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    await books.manager.adjust_credits("alice", START - 5, direction="debit", idempotency_key="poor")
    client = of_openai(provider, client_of(library, books, mode=mode), mode=mode, max_retries=2)
    claude = of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books, mode=mode), mode=mode, max_retries=2)
    tally = Tally(books)
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            await called(mode, client.chat.completions.create, **CHAT, stream=stream)
        assert refused.value.status_code == 402
        assert refused.value.code == "insufficient_credits"
        assert refused.value.body["available"] == 5  # type: ignore[index]
    with pytest.raises(anthropic.APIStatusError) as denied:
        await called(mode, claude.messages.create, **CHAT)
    assert denied.value.status_code == 402
    assert denied.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
    assert denied.value.body["error"]["code"] == "insufficient_credits"  # type: ignore[index]
    assert simulator.requests == []
    assert await tally.counts(books) == (0, 0, 0)
    for one in (client, claude):
        await called(mode, one.close)


async def called(mode: str, function: Any, **arguments: Any) -> Any:
    if mode == "async":
        return await function(**arguments)
    return await asyncio.to_thread(function, **arguments)


async def test_the_other_refusals_are_not_repeated_either(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    plans = {"small": {"max_concurrent": 1, "features": ["chat"]}}
    await books.manager.publish_pricing({**PRICING, "plans": plans})
    await books.manager.set_user_plan("alice", "small")
    scripted(simulator, delay_seconds=0.5)
    library = OPENAI_LIBRARIES[-1]
    denials: list[str] = []
    books.manager.on("credits.denied", lambda event: denials.append(event.data["code"]))
    async with of_openai(provider, client_of(library, books), max_retries=2) as client:
        first = asyncio.ensure_future(client.chat.completions.create(**CHAT))
        await asyncio.sleep(0.1)
        with pytest.raises(openai.RateLimitError) as busy:
            await client.chat.completions.create(**CHAT)
        assert busy.value.code == "concurrency_limit"
        await first
    vision = TransportOptions(feature="vision")
    async with of_openai(provider, client_of(library, books, options=vision), max_retries=2) as client:
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await client.chat.completions.create(**CHAT)
        assert denied.value.code == "feature_not_entitled"
    async with of_openai(provider, client_of(library, books), max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as unknown:
            await client.chat.completions.create(**{**CHAT, "model": "unheard-of"})
        assert unknown.value.code == "price_unknown"
        with pytest.raises(openai.NotFoundError) as unmetered:
            await client.post("/rerank", body={"model": "m"}, cast_to=object)
        assert unmetered.value.code == "unmetered_route"
    await books.manager.events.drain(seconds=1)
    assert denials == ["concurrency_limit", "feature_not_entitled"]
    assert len(simulator.requests) == 1


async def test_each_attempt_has_a_hold_and_only_the_success_is_charged(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    scripted(simulator, status=500)
    scripted(simulator, status=429, retry_after_seconds=1)
    tally = Tally(books)
    async with of_openai(provider, client_of(OPENAI_LIBRARIES[-1], books), max_retries=2) as client:
        await client.chat.completions.create(**CHAT, extra_headers={"Idempotency-Key": "mine"})
    assert [request.headers["idempotency-key"] for request in simulator.requests] == 3 * ["mine"]
    assert await tally.counts(books) == (3, 2, 1)
    assert await books.spent() == cost_of(CHAT)


async def test_anthropic_is_charged_once_for_a_call_that_it_repeats(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    scripted(simulator, status=529)
    # A plain answer that breaks off is of no use to anybody, and the SDK asks again.
    scripted(simulator, cut_after_bytes=40)
    tally = Tally(books)
    async with of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books), max_retries=2) as client:
        await client.messages.create(**CHAT)
    assert await tally.counts(books) == (3, 2, 1)
    assert await books.spent() == cost_of(CHAT)


@EACH_LIBRARY
async def test_who_closes_a_stream_early_is_charged_for_what_came(
    library: str, books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    scripted(simulator, hang_after_events=4, text="w" * 8 * 20)
    async with of_openai(provider, client_of(library, books)) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        for _ in range(4):
            await anext(stream)
        await stream.close()
        row = (await books.transactions())[0]
        await asyncio.wait_for(simulator.requests[0].ended.wait(), 2)
    assert row.estimated
    sent = len(simulator.requests[0].raw_body)
    # The first of the four events has no text; five tokens are in each of the others.
    assert -(-sent // 4) + 2 * 5 * 3 <= row.charged <= -(-sent // 4) + 2 * 5 * 4
    assert simulator.requests[0].outcome == "aborted"


async def test_who_leaves_an_anthropic_stream_early_is_charged_at_least_what_was_told(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    scripted(simulator, hang_after_events=5, text="w" * 8 * 20)
    async with of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books)) as client:
        async with client.messages.stream(**CHAT) as stream:
            async for text in stream.text_stream:
                assert text
                break
        row = (await books.transactions())[0]
    assert row.estimated
    assert row.charged >= cost_of(CHAT, output_tokens=5)


async def test_a_cancelled_call_is_free_before_the_answer_and_charged_within_it(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    tally = Tally(books)
    async with of_openai(provider, client_of(OPENAI_LIBRARIES[-1], books)) as client:
        scripted(simulator, delay_seconds=30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat.completions.create(**CHAT), 0.2)
        assert await tally.counts(books) == (1, 1, 0)
        assert await books.spent() == 0

        scripted(simulator, hang_after_events=4)
        stream = await client.chat.completions.create(**CHAT, stream=True)

        async def read() -> None:
            async for _ in stream:
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.2)
        await stream.close()
        assert await tally.counts(books) == (2, 1, 1)
        assert (await books.transactions())[0].estimated


async def test_an_error_within_a_stream_is_charged_by_what_came_before(
    books: Books, provider: str, simulator: ProviderSimulator
) -> None:
    async with of_openai(provider, client_of(OPENAI_LIBRARIES[-1], books)) as client:
        scripted(simulator, error_after_events=4)
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(**CHAT, stream=True):
                pass
        assert (await first_charge(books)).estimated
        spent = await books.spent()
        scripted(simulator, error_after_events=0)
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(**CHAT, stream=True):
                pass
        assert await books.spent() == spent


async def first_charge(books: Books) -> Any:
    """Not every major closes the stream when it raises, so nobody waits for the charge."""
    for _ in range(200):
        if rows := await books.transactions():
            return rows[0]
        await asyncio.sleep(0.01)
    raise AssertionError("the call was not charged in time")


TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
OPENAI_USAGE = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}


def openai_tool_answer() -> bytes:
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps({**body, "usage": OPENAI_USAGE}).encode()


def openai_tool_stream() -> list[bytes]:
    def event(**fields: Any) -> bytes:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": None, **fields}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    pieces = ['{"ci', 'ty": "Ro', 'me"}']
    first = {"index": 0, **TOOL_CALL, "function": {"name": "weather", "arguments": ""}}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    events = [event(choices=[{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    events.append(event(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]))
    return [*events, event(choices=[], usage=OPENAI_USAGE), b"data: [DONE]\n\n"]


def anthropic_tool_stream() -> list[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    block = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    pieces = ['{"ci', 'ty": "Rome"}']
    return [
        event("message_start", message={**message, "usage": {"input_tokens": 40, "output_tokens": 1}}),
        event("content_block_start", index=0, content_block=block),
        *(
            event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": piece})
            for piece in pieces
        ),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 12}),
        event("message_stop"),
    ]


@EACH_LIBRARY
async def test_openai_tools(library: str, books: Books) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": LOOKUP}}]
    plain = app_sending([openai_tool_answer()], media_type="application/json")
    async with serve(plain) as url, of_openai(url, client_of(library, books)) as client:
        answer = await client.chat.completions.create(**CHAT, tools=tools)
        assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "Rome"}
    assert await books.spent() == 40 + 2 * 12
    async with serve(app_sending(openai_tool_stream())) as url, of_openai(url, client_of(library, books)) as client:
        arguments = ""
        async for chunk in await client.chat.completions.create(**CHAT, tools=tools, stream=True):
            for call in chunk.choices[0].delta.tool_calls or ():
                arguments += call.function.arguments or ""
        assert json.loads(arguments) == {"city": "Rome"}
    assert await books.spent() == 2 * (40 + 2 * 12)


async def test_anthropic_tools(books: Books) -> None:
    tools = [{"name": "weather", "input_schema": LOOKUP}]
    async with (
        serve(app_sending(anthropic_tool_stream())) as url,
        of_anthropic(url, client_of(ANTHROPIC_LIBRARY, books)) as client,
        client.messages.stream(model="m", max_tokens=50, messages=MESSAGES, tools=tools) as stream,
    ):
        message = await stream.get_final_message()
    assert message.content[0].input == {"city": "Rome"}
    assert await books.spent() == 40 + 2 * 12


async def test_many_calls_at_once(books: Books, provider: str) -> None:
    async with (
        of_openai(provider, client_of(OPENAI_LIBRARIES[-1], books)) as client,
        of_anthropic(provider, client_of(ANTHROPIC_LIBRARY, books)) as claude,
    ):

        async def stream() -> None:
            async for _ in await client.chat.completions.create(**CHAT, stream=True):
                pass

        await asyncio.gather(
            *(client.chat.completions.create(**CHAT) for _ in range(10)),
            *(stream() for _ in range(10)),
            *(claude.messages.create(**CHAT) for _ in range(10)),
        )
    assert await books.spent() == 30 * cost_of(CHAT)
