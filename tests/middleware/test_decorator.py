"""`@metered` on every kind of function, with what the real SDKs return."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import TypeAdapter

from ducto.context import acting_as
from ducto.errors import AlreadySettledError, ConfigError, InsufficientCreditsError
from ducto.manager import CreditManager
from ducto.middleware.decorator import metered
from ducto.stores.memory import MemoryStore
from ducto.usage import UsageMetrics

PRICING = {"models": {"m": "input_tokens * 2 + cache_read_tokens + output_tokens * 10"}, "min_balance": 0}

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m-2026",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}
MESSAGE = {
    "id": "msg",
    "type": "message",
    "role": "assistant",
    "model": "m-2026",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 3},
}
RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m-2026",
    "output": [],
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
    },
}
#: Each of them: 6 fresh and 4 cached tokens in, 3 out.
COST = 6 * 2 + 4 + 3 * 10


@pytest.fixture
async def manager() -> AsyncIterator[CreditManager]:
    async with CreditManager(MemoryStore(), maintain_every_seconds=None) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u", 100_000)
        yield manager


async def spent(manager: CreditManager, user_id: str = "u") -> int:
    for _ in range(20):
        await asyncio.sleep(0)
    found = await manager.get_available(user_id)
    assert found.held == 0
    return 100_000 - found.balance


@pytest.mark.parametrize(
    "result",
    [
        CHAT,
        ChatCompletion.model_validate(CHAT),
        MESSAGE,
        Message.model_validate(MESSAGE),
        RESPONSE,
        Response.model_validate(RESPONSE),
        SimpleNamespace(model="m", usage=SimpleNamespace(**CHAT["usage"])),  # type: ignore[arg-type]
        UsageMetrics(model="m", input_tokens=6, cache_read_tokens=4, output_tokens=3),
        SimpleNamespace(usage=UsageMetrics(input_tokens=6, cache_read_tokens=4, output_tokens=3)),
    ],
    ids=lambda result: type(result).__name__,
)
async def test_usage_is_found_in_results(manager: CreditManager, result: Any) -> None:
    @metered(manager, model="m", user_id="u")
    async def ask(prompt: str) -> Any:
        return result

    assert await ask("hi") is result
    assert await spent(manager) == COST
    row = (await manager.list_transactions("u")).transactions[0]
    assert (row.model, row.operation_type, row.estimated) == ("m", "ask", False)


async def test_options_are_values_or_functions_of_the_arguments(manager: CreditManager) -> None:
    @metered(
        manager,
        model=lambda user, *, model="m": model,
        user_id=lambda user, **_: user,
        estimate=lambda *_, **__: 500,
        usage=lambda text: UsageMetrics(output_tokens=len(text)),
        operation_type="summary",
        metadata=lambda user, **_: {"source": user},
    )
    async def ask(user: str, *, model: str = "m") -> str:
        return "four"

    assert ask.__name__ == "ask"
    assert await ask("u", model="m") == "four"
    assert await spent(manager) == 40
    row = (await manager.list_transactions("u")).transactions[0]
    assert (row.operation_type, row.reserved, row.metadata) == ("summary", 500, {"source": "u"})


async def test_the_acting_user_pays(manager: CreditManager) -> None:
    @metered(manager, estimate=500, usage=lambda n: n)
    async def ask(n: int) -> int:
        return n

    with pytest.raises(ConfigError, match="acting_as"):
        await ask(1)
    team = await manager.create_team("t", 1000)
    assert team.team_id is not None
    await manager.add_team_member(team.team_id, "u")
    with acting_as("u"):
        await ask(7)
        with acting_as("u", team_id=team.team_id):
            await ask(9)
    assert await spent(manager) == 7
    assert (await manager.get_team_balance(team.team_id)).balance == 991


async def test_the_default_estimate_is_a_bound_by_the_arguments(manager: CreditManager) -> None:
    held: list[int] = []

    @metered(manager, model="m", user_id="u")
    async def ask(messages: list[dict[str, str]], max_tokens: int | None = None) -> None:
        held.append((await manager.get_available("u")).held)

    await ask([{"role": "user", "content": "hello"}], max_tokens=100)
    await ask([], None)
    assert held == [9 * 2 + 100 * 10, 4096 * 10]

    @metered(manager, user_id="u")
    async def unknown() -> None: ...

    with pytest.raises(ConfigError, match="estimate"):
        await unknown()


async def test_a_failure_is_released_and_unreadable_usage_is_not(manager: CreditManager) -> None:
    @metered(manager, model="m", user_id="u", estimate=500)
    async def fail() -> None:
        raise RuntimeError("provider")

    with pytest.raises(RuntimeError, match="provider"):
        await fail()
    assert await spent(manager) == 0

    @metered(manager, model="m", user_id="u", estimate=500, usage=lambda result: result["usage"])
    async def odd() -> dict[str, int]:
        return {}

    assert await odd() == {}
    assert await spent(manager) == 500


async def test_a_refused_call_does_not_run(manager: CreditManager) -> None:
    ran: list[int] = []

    @metered(manager, user_id="poor", estimate=500)
    async def ask() -> None:
        ran.append(1)

    with pytest.raises(InsufficientCreditsError):
        await ask()
    assert ran == []


async def test_a_finished_key_is_not_run_again(manager: CreditManager) -> None:
    @metered(manager, user_id="u", estimate=500, usage=lambda n: n, idempotency_key=lambda n: f"call-{n}")
    async def ask(n: int) -> int:
        return n

    await ask(5)
    with pytest.raises(AlreadySettledError):
        await ask(5)
    assert await spent(manager) == 5


def chat_chunks() -> list[ChatCompletionChunk]:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-2026"}
    deltas = [
        {**base, "choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]},
        {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**base, "choices": [], "usage": CHAT["usage"]},
    ]
    return [ChatCompletionChunk.model_validate(delta) for delta in deltas]


def message_events() -> list[Any]:
    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE["usage"], "output_tokens": 1}}  # type: ignore[dict-item]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 40}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    return [adapter.validate_python(event) for event in events]


Chunks = Callable[[], list[Any]]


@pytest.mark.parametrize("chunks", [chat_chunks, message_events])
async def test_streams_are_charged_for_their_usage(manager: CreditManager, chunks: Chunks) -> None:
    @metered(manager, model="m", user_id="u")
    async def stream(prompt: str) -> AsyncIterator[Any]:
        for chunk in chunks():
            yield chunk

    assert [chunk async for chunk in stream("hi")] == chunks()
    assert await spent(manager) == COST

    @metered(manager, model="m", user_id="u")
    def stream_in_thread(prompt: str) -> Iterator[Any]:
        yield from chunks()

    assert await asyncio.to_thread(lambda: list(stream_in_thread("hi"))) == chunks()
    assert await spent(manager) == 2 * COST


async def test_an_abandoned_stream_is_charged_for_what_was_delivered(manager: CreditManager) -> None:
    @metered(manager, model="m", user_id="u", estimate=500)
    async def stream(chunks: list[Any]) -> AsyncGenerator[Any, None]:
        for chunk in chunks:
            yield chunk

    unstarted = stream(chat_chunks())
    await unstarted.aclose()
    assert await spent(manager) == 0
    cut = stream(chat_chunks())
    await anext(cut)
    await cut.aclose()
    assert await spent(manager) == 500  # no usage has come: the estimate
    cut = stream(message_events())
    for _ in range(3):
        await anext(cut)
    await cut.aclose()
    # The start told the input; 40 bytes of text are about 10 tokens.
    assert await spent(manager) == 500 + 6 * 2 + 4 + 10 * 10
    row = (await manager.list_transactions("u")).transactions[0]
    assert row.estimated


async def test_a_stream_that_fails(manager: CreditManager) -> None:
    @metered(manager, user_id="u", estimate=500, usage=lambda n: n)
    async def stream(items: int) -> AsyncIterator[int | None]:
        for n in range(items):
            yield n + 1
        raise RuntimeError("cut")

    async def read(items: int) -> None:
        async for _ in stream(items):
            pass

    with pytest.raises(RuntimeError, match="cut"):
        await read(0)
    assert await spent(manager) == 0
    with pytest.raises(RuntimeError, match="cut"):
        await read(3)
    assert await spent(manager) == 3  # the last answer of `usage` counts


async def test_generators_keep_send_throw_and_return(manager: CreditManager) -> None:
    @metered(manager, user_id="u", estimate=10, usage=lambda _: 1)
    def echo() -> Generator[str, str, int]:
        said = yield "first"
        try:
            yield said.upper()
        except ValueError as error:
            yield str(error)
        return 42

    def drive() -> tuple[list[str], int]:
        talk = echo()
        heard = [next(talk), talk.send("a"), talk.throw(ValueError("thrown"))]
        try:
            next(talk)
        except StopIteration as stop:
            return heard, stop.value
        raise AssertionError

    assert await asyncio.to_thread(drive) == (["first", "A", "thrown"], 42)

    @metered(manager, user_id="u", estimate=10, usage=lambda _: 1)
    async def aecho() -> AsyncGenerator[str, str]:
        said = yield "first"
        try:
            yield said.upper()
        except ValueError as error:
            yield str(error)

    talk = aecho()
    assert [await anext(talk), await talk.asend("a"), await talk.athrow(ValueError("thrown"))] == [
        "first",
        "A",
        "thrown",
    ]
    assert [item async for item in talk] == []
    assert await spent(manager) == 2


async def test_plain_functions_work_in_threads_and_nowhere_else(manager: CreditManager) -> None:
    @metered(manager, estimate=500, usage=lambda n: n)
    def ask(n: int) -> int:
        if n < 0:
            raise ValueError(n)
        return n

    with acting_as("u"):
        with pytest.raises(ConfigError, match="async def"):
            ask(1)
        assert await asyncio.to_thread(ask, 8) == 8
        with pytest.raises(ValueError, match="-1"):
            await asyncio.to_thread(ask, -1)
    assert await spent(manager) == 8


def test_plain_functions_without_any_loop() -> None:
    manager = CreditManager(MemoryStore(), maintain_every_seconds=None)

    @metered(manager, user_id="u", estimate=500, usage=lambda n: n)
    def ask(n: int) -> int:
        return n

    with pytest.raises(InsufficientCreditsError):
        ask(1)
    manager.portal.call(lambda: manager.add_credits("u", 1000), instead="await it")
    assert ask(30) == 30
    assert manager.portal.call(lambda: manager.get_balance("u"), instead="await it").balance == 970
    manager.close()


async def test_a_forgotten_generator_is_ended_by_the_garbage_collector(manager: CreditManager) -> None:
    @metered(manager, user_id="u", estimate=500, usage=lambda n: n)
    def stream() -> Iterator[int]:
        yield 3
        yield 4

    kept = [await asyncio.to_thread(stream)]
    assert await asyncio.to_thread(next, kept[0]) == 3
    kept.clear()  # on the loop's own thread, where nobody can wait for the charge
    gc.collect()
    await asyncio.sleep(0.05)
    assert await spent(manager) == 3


async def test_cancelling_a_metered_call_frees_its_hold(manager: CreditManager) -> None:
    @metered(manager, user_id="u", estimate=500)
    async def ask() -> None:
        await asyncio.sleep(3600)

    task = asyncio.create_task(ask())
    await asyncio.sleep(0.01)
    assert (await manager.get_available("u")).held == 500
    task.cancel()
    await asyncio.wait((task,))
    assert await spent(manager) == 0
