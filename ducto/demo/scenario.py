"""What the clients of the demo do, each step through the real SDKs, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ducto.demo.environment import Environment
from ducto.errors import ConfigError
from ducto.models import StoredEvent

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

__all__ = ["Step", "play"]

MESSAGES: list[Any] = [{"role": "user", "content": "Why does a gateway reserve credits before a call?"}]
OPENAI_MODEL, CLAUDE_MODEL = "gpt-4o-mini", "claude-sonnet-4-5"
#: How long the demo waits for a settle that goes on after its client has left.
SETTLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was tried, what the client saw, and what the ledger shows. Amounts are credits."""

    title: str
    user: str
    seen: str
    hold: int | None
    actual: int | None
    balance: int
    provider_calls: int
    as_expected: bool


class Stage:
    """The clients, and the reading of the books around each of their calls."""

    def __init__(self, environment: Environment) -> None:
        try:
            from anthropic import AsyncAnthropic
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ConfigError("The demo needs the SDKs: pip install 'ducto[demo]'.") from error
        self.environment = environment
        self._openai, self._anthropic = AsyncOpenAI, AsyncAnthropic
        self._cursor: str | None = None

    def openai(self, user: str) -> AsyncOpenAI:
        environment = self.environment
        return self._openai(base_url=f"{environment.url}/v1", api_key=environment.key_of[user], max_retries=0)

    def anthropic(self, user: str) -> AsyncAnthropic:
        environment = self.environment
        return self._anthropic(base_url=environment.url, api_key=environment.key_of[user], max_retries=0)

    async def step(
        self,
        title: str,
        user: str,
        call: Callable[[], Awaitable[str]],
        *,
        charged: bool,
        calls: int = 1,
        seen: str = "",
    ) -> Step:
        """Run `call` and see what it did to the books: whether `user` was charged, once, and the hold is gone."""
        store, simulator = self.environment.store, self.environment.simulator
        before = await store.get_balance(user)
        cursor, calls_before = await self._position(), len(simulator.requests)
        answer = await call()
        await self._settled(user)
        new = await self._since(cursor, user)
        holds = [event.amount for event in new if event.name == "credits.reserved"]
        rows = [
            await store.get_transaction(event.transaction_id)
            for event in new
            if event.name == "credits.deducted" and event.transaction_id is not None
        ]
        balance = (await store.get_balance(user)).balance
        actual = sum(row.actual for row in rows)
        made = len(simulator.requests) - calls_before
        return Step(
            title=title,
            user=user,
            seen=answer,
            hold=holds[0] if holds else None,
            actual=actual if rows else None,
            balance=balance,
            provider_calls=made,
            as_expected=(
                len(rows) == (1 if charged else 0)
                and before.balance - balance == actual
                and made == calls
                and seen in answer
            ),
        )

    async def _position(self) -> str | None:
        """Where the recorded events end by now."""
        while (page := await self.environment.store.list_events(self._cursor, limit=1000)).events:
            self._cursor = page.next_cursor
        return self._cursor

    async def _since(self, cursor: str | None, user: str) -> list[StoredEvent]:
        """The events of `user` after `cursor`."""
        found: list[StoredEvent] = []
        while (page := await self.environment.store.list_events(cursor, limit=1000)).events:
            found += [event for event in page.events if event.user_id == user]
            cursor = page.next_cursor
        return found

    async def _settled(self, user: str) -> None:
        for _ in range(round(SETTLE_SECONDS / 0.02)):
            if not (await self.environment.store.get_available(user)).held:
                return
            await asyncio.sleep(0.02)


async def play(environment: Environment) -> AsyncIterator[Step]:
    """All steps, in order; each is over, and its hold settled, before the next begins."""
    stage = Stage(environment)
    for act in (_plain_calls, _streams, _runs_out, _provider_fails, _leaves, _retries):
        async for step in act(stage):
            yield step


async def _plain_calls(stage: Stage) -> AsyncIterator[Step]:
    async def chat() -> str:
        answer = await stage.openai("alice").chat.completions.create(
            model=OPENAI_MODEL, messages=MESSAGES, max_completion_tokens=200
        )
        return f"200, {answer.usage.completion_tokens if answer.usage else '?'} tokens"

    async def message() -> str:
        answer = await stage.anthropic("bob").messages.create(model=CLAUDE_MODEL, messages=MESSAGES, max_tokens=200)
        return f"200, {answer.usage.output_tokens} tokens"

    yield await stage.step("OpenAI SDK, plain", "alice", chat, charged=True, seen="200")
    yield await stage.step("Anthropic SDK, plain", "bob", message, charged=True, seen="200")


async def _streams(stage: Stage) -> AsyncIterator[Step]:
    async def chat() -> str:
        stream = await stage.openai("alice").chat.completions.create(
            model=OPENAI_MODEL, messages=MESSAGES, max_completion_tokens=200, stream=True
        )
        chunks = [chunk async for chunk in stream]
        hidden = all(chunk.usage is None for chunk in chunks)
        return f"stream of {len(chunks)} chunks" + (", no usage chunk" if hidden else ", usage shown")

    async def message() -> str:
        async with stage.anthropic("bob").messages.stream(
            model=CLAUDE_MODEL, messages=MESSAGES, max_tokens=200
        ) as stream:
            texts = [text async for text in stream.text_stream]
        return f"stream of {len(texts)} texts"

    yield await stage.step("OpenAI SDK, stream", "alice", chat, charged=True, seen="no usage chunk")
    yield await stage.step("Anthropic SDK, stream", "bob", message, charged=True, seen="stream of")


async def _runs_out(stage: Stage) -> AsyncIterator[Step]:
    import openai

    async def chat() -> str:
        try:
            answer = await stage.openai("carol").chat.completions.create(
                model=OPENAI_MODEL, messages=MESSAGES, max_completion_tokens=200
            )
        except openai.APIStatusError as refusal:
            return f"{refusal.status_code} {refusal.code}: {_error_message(refusal.body)}"
        return f"200, {answer.usage.completion_tokens if answer.usage else '?'} tokens"

    for _ in range(20):
        step = await stage.step("A user with few credits", "carol", chat, charged=True, seen="200")
        if step.hold is not None:
            yield step
            continue
        yield await stage.step("The same user, out of credits", "carol", chat, charged=False, calls=0, seen="402")
        return


async def _provider_fails(stage: Stage) -> AsyncIterator[Step]:
    import openai

    async def chat() -> str:
        try:
            await stage.openai("alice").chat.completions.create(
                model=OPENAI_MODEL,
                messages=MESSAGES,
                extra_headers={"x-simulate": '{"status": 500}'},
            )
        except openai.APIStatusError as error:
            return f"{error.status_code} from the provider, hold released"
        return "200"

    yield await stage.step("The provider fails", "alice", chat, charged=False, seen="500")


async def _leaves(stage: Stage) -> AsyncIterator[Step]:
    async def chat() -> str:
        stream = await stage.openai("alice").chat.completions.create(
            model=OPENAI_MODEL,
            messages=MESSAGES,
            max_completion_tokens=2000,
            stream=True,
            extra_headers={"x-simulate": '{"chunks": 200, "chunk_delay_seconds": 0.1}'},
        )
        received = 0
        async for _ in stream:
            received += 1
            if received == 5:
                break
        await stream.close()
        return f"left after {received} chunks, billed for what was delivered"

    yield await stage.step("A client leaves mid-stream", "alice", chat, charged=True, seen="left")


async def _retries(stage: Stage) -> AsyncIterator[Step]:
    ids: list[str] = []

    async def chat() -> str:
        answer = await stage.openai("alice").chat.completions.create(
            model=OPENAI_MODEL,
            messages=MESSAGES,
            max_completion_tokens=200,
            extra_headers={"Idempotency-Key": f"demo-{stage.environment.run_id}"},
        )
        ids.append(answer.id)
        return "200, the same answer" if len(ids) == 2 and ids[0] == ids[1] else "200"

    yield await stage.step("A call with an idempotency key", "alice", chat, charged=True, seen="200")
    yield await stage.step("The same call again", "alice", chat, charged=False, calls=0, seen="the same answer")


def _error_message(body: object) -> str:
    return str(body.get("message", "")) if isinstance(body, dict) else ""
