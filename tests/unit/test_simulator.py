"""The provider simulator on a real socket: the real SDKs understand it, and its faults are what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anthropic
import httpx
import openai
import pytest

from ducto.middleware.providers import DEFAULT_ROUTES, load_object
from ducto.middleware.providers.base import UsageReading
from ducto.middleware.sse import SSEParser
from ducto.testing.clock import ManualClock
from ducto.testing.serving import serve
from ducto.testing.simulator import Fault, ProviderSimulator, SimulatedRequest, input_tokens_of
from ducto.testing.simulator.reply import IMAGE_TOKENS

MESSAGES = [{"role": "user", "content": "How much is the fish?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES, "n": 2},
    "/v1/completions": {"model": "m", "prompt": "Once", "max_tokens": 5},
    "/v1/responses": {"model": "m", "input": "Once upon"},
    "/v1/messages": {"model": "m", "max_tokens": 100, "messages": MESSAGES},
}
ROUTES = pytest.mark.parametrize("path", BODIES)


class Bench:
    """The simulator behind a socket, and clients for it."""

    def __init__(self, simulator: ProviderSimulator, base_url: str) -> None:
        self.simulator = simulator
        self.base_url = base_url
        self.http = httpx.AsyncClient(base_url=base_url, timeout=5)

    @property
    def last(self) -> SimulatedRequest:
        return self.simulator.requests[-1]

    async def read(self, path: str, *, fault: Fault | None = None, **fields: Any) -> UsageReading:
        """Call a route as the gateway would: what our reader makes of the answer's bytes."""
        if fault is not None:
            self.simulator.script(fault)
        provider = DEFAULT_ROUTES[path]
        body = {**BODIES.get(path, {}), **fields}
        body = provider.ask_for_usage(body) or body
        request = provider.read_request(body, body_bytes=len(json.dumps(body)))
        answer = await self.http.post(path, json=body)
        if not body.get("stream"):
            return provider.usage_from_body(load_object(answer.content), request=request)
        reader, parser = provider.stream_reader(request=request), SSEParser()
        items = parser.feed(answer.content)
        last = parser.flush()
        for item in items if last is None else [*items, last]:
            reader.feed(item)
        return reader.reading()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    simulator = ProviderSimulator()
    async with serve(simulator.app) as base_url:
        made = Bench(simulator, base_url)
        yield made
        await made.http.aclose()


def assert_read(reading: UsageReading, record: SimulatedRequest) -> None:
    assert reading.final
    assert reading.usage is not None
    assert record.reply is not None
    assert reading.usage.total_input_tokens == record.reply.input_tokens == input_tokens_of(record.body)
    assert reading.usage.total_output_tokens == record.reply.output_tokens
    assert record.outcome == "completed"


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
async def test_our_reader_reads_what_was_used(bench: Bench, path: str, stream: bool) -> None:
    reading = await bench.read(path, stream=stream)
    assert_read(reading, bench.last)
    assert bench.last.reply is not None
    assert reading.delivered_bytes == len(bench.last.reply.text) * bench.last.reply.choices


async def test_our_reader_reads_embeddings(bench: Bench) -> None:
    reading = await bench.read("/v1/embeddings", model="m", input=["a", "b"])
    assert_read(reading, bench.last)
    assert reading.usage is not None
    assert reading.usage.total_output_tokens == 0


async def test_the_openai_sdk_understands_every_route(bench: Bench) -> None:
    async with openai.AsyncOpenAI(base_url=bench.base_url + "/v1", api_key="k", max_retries=0) as client:
        chat = await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
        reply = bench.last.reply
        assert reply is not None
        assert chat.choices[0].message.content == reply.text
        assert chat.usage is not None
        assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (reply.input_tokens, 8)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="m",
                messages=MESSAGES,  # type: ignore[arg-type]
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == reply.text
        assert chunks[-1].usage == chat.usage
        legacy = await client.completions.create(model="m", prompt="x", max_tokens=3)
        assert (legacy.choices[0].text, legacy.choices[0].finish_reason) == ("word1 word2 word3 ", "length")
        response = await client.responses.create(model="m", input="x")
        assert response.output_text == reply.text
        assert response.usage is not None
        assert response.usage.output_tokens == 8
        events = [event async for event in await client.responses.create(model="m", input="x", stream=True)]
        assert events[-1].type == "response.completed"
        assert events[-1].response.usage == response.usage
        vectors = await client.embeddings.create(model="m", input=["a", "b"])
        assert [len(item.embedding) for item in vectors.data] == [4, 4]
        bench.simulator.script(Fault(status=429, retry_after_seconds=3))
        with pytest.raises(openai.RateLimitError) as refused:
            await client.responses.create(model="m", input="x")
        assert refused.value.response.headers["retry-after"] == "3"
    assert [record.outcome for record in bench.simulator.requests] == ["completed"] * 6 + ["refused"]


async def test_the_openai_sdk_understands_images_and_sound(bench: Bench) -> None:
    async with openai.AsyncOpenAI(base_url=bench.base_url + "/v1", api_key="k", max_retries=0) as client:
        images = await client.images.generate(model="gpt-image-1", prompt="a fish", n=2)
        assert images.data is not None
        assert images.usage is not None
        assert (len(images.data), images.usage.output_tokens) == (2, 2 * IMAGE_TOKENS)
        stream = await client.images.generate(model="gpt-image-1", prompt="a fish", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
        edited = await client.images.edit(model="dall-e-2", prompt="x", n=3, image=[b"\x89PNG", b"\x89PNG"])
        assert (len(edited.data or []), edited.usage) == (3, None)
        sound = await client.audio.speech.create(model="tts-1", input="hello", voice="alloy")
        assert len(await sound.aread()) == 8_000
        recording = ("a.mp3", b"\xff\xfb" * 2_000)
        text = await client.audio.transcriptions.create(model="whisper-1", file=recording)
        assert text.usage is not None
        assert text.usage.type == "duration"
        assert text.usage.seconds == 2
        parts = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=recording, stream=True)
        last = [part async for part in parts][-1]
        assert last.type == "transcript.text.done"
        assert last.usage is not None
        assert (last.usage.input_tokens, last.usage.output_tokens) == (40, 8)
        plain = await client.audio.transcriptions.create(model="whisper-1", file=recording, response_format="srt")
        assert "word1" in str(plain)


@pytest.mark.parametrize("alt", ["", "?alt=sse"])
async def test_gemini_streams_in_two_forms(bench: Bench, alt: str) -> None:
    answer = await bench.http.post("/v1beta/models/gemini:streamGenerateContent" + alt, json={"contents": []})
    assert answer.headers["content-type"].startswith("text/event-stream" if alt else "application/json")
    chunks = [json.loads(item.data) for item in SSEParser().feed(answer.content)] if alt else answer.json()
    assert chunks[-1]["usageMetadata"]["candidatesTokenCount"] == 8
    assert [chunk["modelVersion"] for chunk in chunks] == ["gemini"] * 9


async def test_the_anthropic_sdk_understands_messages(bench: Bench) -> None:
    async with anthropic.AsyncAnthropic(base_url=bench.base_url, api_key="k", max_retries=0) as client:
        message = await client.messages.create(model="m", max_tokens=5, messages=MESSAGES)  # type: ignore[arg-type]
        assert message.content[0].text == "word1 word2 word3 word4 word5 "  # type: ignore[union-attr]
        assert (message.usage.output_tokens, message.stop_reason) == (5, "max_tokens")
        async with client.messages.stream(model="m", max_tokens=100, messages=MESSAGES) as stream:  # type: ignore[arg-type]
            final = await stream.get_final_message()
        assert final.usage.output_tokens == 8
        assert final.usage.input_tokens == message.usage.input_tokens == input_tokens_of(bench.last.body)
        bench.simulator.script(Fault(error_after_events=4))
        with pytest.raises(anthropic.APIStatusError, match="simulated"):
            async for _ in await client.messages.create(
                model="m",
                max_tokens=100,
                messages=MESSAGES,  # type: ignore[arg-type]
                stream=True,
            ):
                pass


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_faults(bench: Bench, path: str, stream: bool) -> None:
    missing = await bench.read(path, fault=Fault(usage="missing"), stream=stream)
    assert missing.usage is None
    assert missing.delivered_bytes > 0
    zero = await bench.read(path, fault=Fault(usage="zero"), stream=stream)
    assert zero.explicit_zero
    garbage = await bench.read(path, fault=Fault(garbage=True), stream=stream)
    assert garbage.usage is None
    name = "output_tokens" if path in ("/v1/responses", "/v1/messages") else "completion_tokens"
    odd = await bench.read(path, fault=Fault(usage_fields={name: -5}), stream=stream)
    assert not odd.final
    assert odd.problems


@pytest.mark.parametrize("usage", ["last_choice", "cumulative"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_usage_in_unusual_places_of_a_stream(bench: Bench, path: str, usage: Any) -> None:
    assert_read(await bench.read(path, fault=Fault(usage=usage), stream=True), bench.last)


@ROUTES
@pytest.mark.parametrize("line_end", ["crlf", "cr"])
async def test_line_ends(bench: Bench, path: str, line_end: Any) -> None:
    assert_read(await bench.read(path, fault=Fault(line_end=line_end), stream=True), bench.last)


async def read_into(got: list[bytes], call: AbstractAsyncContextManager[httpx.Response]) -> None:
    async with call as answer:
        async for part in answer.aiter_raw():
            got.append(part)  # noqa: PERF401 (what came before the error counts)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_closes_the_connection_within_the_body(bench: Bench, stream: bool) -> None:
    bench.simulator.script(Fault(cut_after_bytes=100))
    body = {**BODIES["/v1/chat/completions"], "stream": stream}
    got: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await read_into(got, bench.http.stream("POST", "/v1/chat/completions", json=body))
    assert len(b"".join(got)) == 100
    assert (bench.last.outcome, bench.last.sent_bytes) == ("cut", 100)


async def test_a_client_that_leaves_is_seen_at_once(bench: Bench) -> None:
    for fault in (Fault(hang_after_events=2), Fault(chunk_delay_seconds=30), Fault(delay_seconds=30)):
        bench.simulator.script(fault)
        with pytest.raises(httpx.ReadTimeout):
            await bench.http.post(
                "/v1/messages",
                json={**BODIES["/v1/messages"], "stream": True},
                timeout=httpx.Timeout(5, read=0.1),
            )
        await asyncio.wait_for(bench.last.ended.wait(), timeout=2)
        assert bench.last.outcome == "aborted"


@ROUTES
async def test_a_stream_without_its_end(bench: Bench, path: str) -> None:
    provider = DEFAULT_ROUTES[path]
    bench.simulator.script(Fault(without_end=True), Fault())
    ended = []
    for _ in range(2):
        body = {**BODIES[path], "stream": True}
        answer = await bench.http.post(path, json=body)
        reader = provider.stream_reader(request=provider.read_request(body, body_bytes=1))
        for item in SSEParser().feed(answer.content):
            reader.feed(item)
        ended.append(reader.finished)
    assert ended == [False, True]


@ROUTES
async def test_an_error_within_a_stream(bench: Bench, path: str) -> None:
    provider = DEFAULT_ROUTES[path]
    bench.simulator.script(Fault(error_after_events=7))
    body = {**BODIES[path], "stream": True, "max_tokens": 50}
    answer = await bench.http.post(path, json=body)
    reader = provider.stream_reader(request=provider.read_request(body, body_bytes=1))
    for item in SSEParser().feed(answer.content):
        reader.feed(item)
    assert (reader.failed, reader.finished) == (True, False)
    assert reader.delivered_bytes > 0
    assert not reader.reading().final


async def test_the_header_selects_a_behaviour_before_the_script(bench: Bench) -> None:
    bench.simulator.script(Fault(text="scripted"))
    by_header = {"x-simulate": json.dumps({"text": "héllo", "chunks": 2})}
    texts = []
    for headers in (by_header, {}, {}):
        answer = await bench.http.post("/v1/messages", json=BODIES["/v1/messages"], headers=headers)
        texts.append(answer.json()["content"][0]["text"])
    assert texts[:2] == ["héllo", "scripted"]
    assert texts[2].startswith("word1")
    for wrong in ('{"nonsense": 1}', "[", "[]", '{"usage": "often"}'):
        refused = await bench.http.post("/v1/messages", json={}, headers={"x-simulate": wrong})
        assert refused.status_code == 400
        assert refused.json()["type"] == "error"


def test_the_clock_moves_only_when_told() -> None:
    clock = ManualClock()
    start = clock()
    assert clock() == start
    assert clock.advance(90) == clock()
    assert (clock() - start).total_seconds() == 90
    clock.set(start)
    assert clock() == start
    with pytest.raises(ValueError, match="aware"):
        clock.set(start.replace(tzinfo=None))
