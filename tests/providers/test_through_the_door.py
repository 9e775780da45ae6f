"""Every route of the table through the middleware: held, charged, and passed on as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware import ClampToAfford, MeteringMiddleware
from ducto.middleware.providers import DEFAULT_ROUTES, OpenAIChat
from ducto.middleware.routes import RouteTable
from ducto.stores.memory import MemoryStore
from ducto.testing.simulator import Fault, ProviderSimulator, input_tokens_of
from ducto.testing.simulator.app import WIRES

START = 10_000_000
#: One credit for a token of input, two for one of output; a thousand for an image, a character or a minute of sound.
TOKENS = {"input": 1_000_000, "output": 2_000_000, "max_output_tokens": 1_000}
MODELS = {
    "m": TOKENS,
    "dall-e-3": {"per_image": 1_000},
    "tts-1": {"per_1m_characters": 1_000_000_000},
    "whisper-1": {"per_audio_minute": 1_000},
}
CONTENTS = {"contents": [{"parts": [{"text": "How much is the fish?"}]}]}
MESSAGES = [{"role": "user", "content": [{"text": "How much is the fish?"}]}]
RECORDING = {"file": ("a.mp3", b"\xff\xfb" * 60_000)}


class Bench:
    """A client of a door with the simulator behind it."""

    def __init__(self, manager: CreditManager, *, user: str = "alice", **options: Any) -> None:
        self.manager = manager
        self.simulator = ProviderSimulator()
        door = MeteringMiddleware(self.simulator.app, manager, identify=lambda scope: user, **options)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=door), base_url="http://door", timeout=10)

    async def spent(self) -> int:
        standing = await self.manager.get_available("alice")
        assert standing.held == 0
        return START - standing.balance

    async def estimated(self) -> bool:
        rows = (await self.manager.store.list_transactions("alice")).transactions
        return next(row for row in rows if row.type == "deduction").estimated


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with CreditManager(MemoryStore(), maintain_every_seconds=None) as manager:
        await manager.setup()
        await manager.publish_pricing({"min_balance": 0, "models": MODELS})
        await manager.add_credits("alice", START, "purchase", idempotency_key="start")
        yield Bench(manager)


PATHS = {
    "/v1/chat/completions": {"model": "m", "messages": []},
    "/v1/completions": {"model": "m", "prompt": "x"},
    "/v1/responses": {"model": "m", "input": "x"},
    "/v1/embeddings": {"model": "m", "input": "x"},
    "/v1/messages": {"model": "m", "messages": [], "max_tokens": 100},
    "/v1beta/models/m:generateContent": CONTENTS,
    "/v1beta/models/m:streamGenerateContent": CONTENTS,
    "/v1beta/models/m:streamGenerateContent?alt=sse": CONTENTS,
    "/v1/models/m:generateContent": CONTENTS,
    "/v1/models/m:streamGenerateContent": CONTENTS,
    "/v1beta/openai/chat/completions": {"model": "m", "messages": []},
    "/v1beta/openai/embeddings": {"model": "m", "input": "x"},
    "/model/m/converse": {"messages": MESSAGES},
    "/model/m/converse-stream": {"messages": MESSAGES},
}


@pytest.mark.parametrize("path", PATHS)
async def test_text_is_charged_by_its_tokens(path: str, bench: Bench) -> None:
    body = PATHS[path]
    answer = await bench.http.post(path, json=body)
    assert answer.status_code == 200
    output = 0 if "embeddings" in path else 8
    assert await bench.spent() == input_tokens_of(body) + 2 * output
    assert not await bench.estimated()
    record = bench.simulator.requests[-1]
    assert record.raw_body == answer.request.content
    assert record.sent_bytes == len(answer.content)


async def test_images_are_charged_by_tokens_or_by_the_image(bench: Bench) -> None:
    body = {"model": "m", "prompt": "a fish", "n": 2}
    await bench.http.post("/v1/images/generations", json=body)
    tokens = input_tokens_of(body) + 2 * 200
    assert await bench.spent() == tokens
    await bench.http.post("/v1/images/generations", json={**body, "model": "dall-e-3"})
    assert await bench.spent() == tokens + 2_000
    form = {"model": "dall-e-3", "n": "3", "prompt": "x"}
    answer = await bench.http.post("/v1/images/edits", data=form, files={"image": ("a.png", b"\x89PNG" * 50_000)})
    assert answer.status_code == 200
    assert await bench.spent() == tokens + 5_000


async def test_speech_is_charged_by_characters(bench: Bench) -> None:
    answer = await bench.http.post("/v1/audio/speech", json={"model": "tts-1", "input": "héllo", "voice": "alloy"})
    assert len(answer.content) == 8_000
    assert await bench.spent() == 5_000


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_recordings_are_charged_by_the_minute(path: str, bench: Bench) -> None:
    answer = await bench.http.post(path, data={"model": "whisper-1"}, files=RECORDING)
    assert answer.status_code == 200
    assert await bench.spent() == 1_000
    assert not await bench.estimated()
    await bench.http.post(path, data={"model": "whisper-1", "response_format": "srt"}, files=RECORDING)
    assert await bench.spent() == 2_000
    assert await bench.estimated()


async def test_recordings_are_charged_by_tokens(bench: Bench) -> None:
    for stream in ("false", "true"):
        await bench.http.post("/v1/audio/transcriptions", data={"model": "m", "stream": stream}, files=RECORDING)
    assert await bench.spent() == 2 * (60 * 20 + 2 * 8)


@pytest.mark.parametrize(
    "path", ["/v1beta/models/m:streamGenerateContent", "/model/m/converse-stream", "/v1beta/models/m:generateContent"]
)
async def test_a_limit_is_lowered_to_what_can_be_paid(path: str, bench: Bench) -> None:
    clamped = Bench(bench.manager, user="bob", clamp=ClampToAfford(floor_tokens=1))
    await bench.manager.add_credits("bob", 300, "purchase")
    body = PATHS[path]
    answer = await clamped.http.post(path, json=body)
    assert answer.status_code == 200
    limit = int(answer.headers["x-ducto-clamped"])
    sent = clamped.simulator.requests[-1].body
    config = sent.get("generationConfig", {}).get("maxOutputTokens") or sent["inferenceConfig"]["maxTokens"]
    assert config == limit < 1_000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1beta/models/unknown:generateContent", lambda body: body["error"]["message"]),
        ("/model/unknown/converse", lambda body: body["message"]),
    ],
)
async def test_a_refusal_is_in_the_form_of_the_provider(path: str, message: Any, bench: Bench) -> None:
    answer = await bench.http.post(path, json=CONTENTS)
    assert answer.status_code == 400
    assert "unknown" in message(answer.json())
    assert bench.simulator.requests == []


async def test_a_background_response_is_refused_and_nothing_is_sent(bench: Bench) -> None:
    answer = await bench.http.post("/v1/responses", json={"model": "m", "input": "x", "background": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "background"
    assert bench.simulator.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/m%2F..%2Fdear:generateContent",
        "/v1beta/models//m:generateContent",
        "/V1beta/models/m:generateContent",
        "/v1beta/models/m:GenerateContent",
        "/v1beta/models/m:generateContent/",
        "/v1beta/models/m%2500:generateContent",
        "/v1beta/models/:generateContent",
        "/v1beta/tunedModels/m:generateContent",
        "/model/m%20/converse",
        "/model/m/invoke",
        "/model/arn:aws:bedrock:x/invoke-with-response-stream",
        "/model/m/Converse-Stream",
        "/v1/videos",
    ],
)
async def test_other_spellings_of_a_path_with_a_model_are_refused(path: str, bench: Bench) -> None:
    answer = await bench.http.post(path, json=CONTENTS)
    assert answer.status_code == 404
    assert "not offered here" in answer.text
    assert bench.simulator.requests == []


async def test_a_path_of_ones_own_with_a_model(bench: Bench) -> None:
    own = Bench(bench.manager, routes={"/own/{model}/ask": OpenAIChat()})
    answer = await own.http.post("/own/m/ask", json=PATHS["/v1/chat/completions"])
    assert "x-ducto-reservation" in answer.headers
    assert (await own.http.post("/own/m/ASK", json={})).text.count("not offered here") == 1
    assert (await own.http.post("/OWN/m/ask", json={})).text.count("not offered here") == 1


@pytest.mark.parametrize("path", ["/{model}", "/a{model}/b", "/a/{model}/{model}/b", "/a/{name}/b"])
def test_a_path_that_does_not_say_where_the_model_is_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="braces"):
        RouteTable({path: OpenAIChat()})


async def test_an_arn_is_a_model(bench: Bench) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    await bench.manager.publish_pricing({"min_balance": 0, "models": {"*inference-profile/abc": TOKENS}})
    answer = await bench.http.post(f"/model/{arn.replace('/', '%2F')}/converse", json={"messages": MESSAGES})
    assert answer.status_code == 200
    assert await bench.spent() > 0


@pytest.mark.parametrize("path", [path for path in PATHS if "stream" in path])
async def test_a_stream_that_breaks_off_is_charged_by_what_was_delivered(path: str, bench: Bench) -> None:
    bench.simulator.script(Fault(error_after_events=5))
    await bench.http.post(path, json=PATHS[path])
    spent = await bench.spent()
    assert 0 < spent < input_tokens_of(PATHS[path]) * 4 + 2 * 30


def test_every_route_is_served_by_the_simulator() -> None:
    assert {path.replace("{model:path}", "{model}") for path in WIRES} == set(DEFAULT_ROUTES)
