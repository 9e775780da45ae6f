"""OpenAI's images and sound: what is held before, what the answers tell, and what is estimated."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ducto.errors import ArgumentError
from ducto.middleware.providers import (
    CallRequest,
    OpenAIImages,
    OpenAISpeech,
    OpenAITranscriptions,
    Provider,
    estimate_usage,
    reserve_usage,
)
from ducto.middleware.providers.forms import FormFile
from ducto.pricing.config import PricingConfigData
from ducto.pricing.engine import PricingEngine
from ducto.usage import UsageMetrics
from tests.providers.support import buckets, read_stream, sse

IMAGES, SPEECH, TRANSCRIPTIONS = OpenAIImages(), OpenAISpeech(), OpenAITranscriptions()


def request_of(provider: Provider, **fields: Any) -> CallRequest:
    return provider.read_request({"model": "m", **fields}, body_bytes=10_000)


def worst(request: CallRequest) -> UsageMetrics:
    return reserve_usage(request, default_output_limit=16_384)


RECORDING = [FormFile(60_000)]


@pytest.mark.parametrize(
    ("provider", "body", "expected"),
    [
        (
            IMAGES,
            {
                "data": [{}, {}],
                "usage": {
                    "input_tokens": 50,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                    "output_tokens": 2_112,
                    "total_tokens": 2_162,
                },
                "svg_usage": {"input_tokens": 3, "output_tokens": 4, "model": "x"},
            },
            {
                "input_tokens": 13,
                "input_image_tokens": 40,
                "output_tokens": 4,
                "output_image_tokens": 2_112,
                "image_count": 2,
            },
        ),
        (
            IMAGES,
            {
                "data": [{}],
                "usage": {
                    "input_tokens": 5,
                    "output_tokens": 100,
                    "output_tokens_details": {"image_tokens": 60, "text_tokens": 30},
                },
            },
            {"input_tokens": 5, "output_tokens": 30, "output_image_tokens": 70, "image_count": 1},
        ),
        (
            TRANSCRIPTIONS,
            {
                "text": "x",
                "usage": {
                    "type": "tokens",
                    "input_tokens": 20,
                    "output_tokens": 7,
                    "total_tokens": 27,
                    "input_token_details": {"audio_tokens": 14, "text_tokens": 6},
                },
            },
            {"input_tokens": 6, "input_audio_tokens": 14, "output_tokens": 7},
        ),
        (
            TRANSCRIPTIONS,
            {"text": "x", "usage": {"type": "tokens", "input_tokens": 20, "output_tokens": 7}},
            {"input_audio_tokens": 20, "output_tokens": 7},
        ),
        (
            TRANSCRIPTIONS,
            {"text": "x", "usage": {"type": "duration", "seconds": 12.3001}},
            {"audio_milliseconds": 12_301},
        ),
        (TRANSCRIPTIONS, {"text": "x", "duration": 3}, {"audio_milliseconds": 3_000}),
        (SPEECH, {"usage": {"input_tokens": 5, "output_tokens": 9}}, {"input_tokens": 5, "output_audio_tokens": 9}),
    ],
)
def test_recorded_bodies(provider: Provider, body: dict[str, Any], expected: dict[str, int]) -> None:
    reading = provider.usage_from_body(body, request=CallRequest(model="m"))
    assert buckets(reading.usage) == expected
    assert reading.final
    assert not reading.explicit_zero
    assert reading.problems == ()


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, 1e308, "12", 2**53, True, [5]], ids=repr)
@pytest.mark.parametrize(
    ("provider", "usage"),
    [
        (IMAGES, {"input_tokens": 5, "output_tokens": None}),
        (TRANSCRIPTIONS, {"input_tokens": 5, "output_tokens": None, "seconds": 0}),
        (TRANSCRIPTIONS, {"seconds": None}),
        (SPEECH, {"input_tokens": 5, "output_tokens": None}),
    ],
)
def test_unusable_usage_is_missing_usage(provider: Provider, usage: dict[str, Any], bad: object) -> None:
    broken = {name: bad if value is None else value for name, value in usage.items()}
    reading = provider.usage_from_body({"data": [{}], "duration": 0, "usage": broken}, request=CallRequest(model="m"))
    assert reading.usage is None
    assert not reading.final
    assert reading.problems


class TestImages:
    def test_what_is_held(self) -> None:
        bound = worst(request_of(IMAGES, prompt="héllo", n=3, image=[FormFile(5_000_000)], mask=[FormFile(9)]))
        assert (bound.image_count, bound.input_tokens) == (3, 6)
        assert (bound.input_image_tokens, bound.output_image_tokens) == (20_000, 30_000)

    def test_a_model_priced_by_the_image_is_charged_by_those_asked_for(self) -> None:
        engine = PricingEngine(PricingConfigData.model_validate({"models": {"m": {"per_image": 40_000}}}))
        request = request_of(IMAGES, prompt="x", n=2)
        assert IMAGES.usage_from_body({"data": [{}, {}]}, request=request).usage is None
        charged = engine.calculate(estimate_usage(request, delivered_bytes=0)).total
        assert charged == engine.estimate(worst(request)) == 80_000

    def test_a_stream_of_images_too_large_to_keep(self) -> None:
        def done(given: int) -> dict[str, Any]:
            usage = {"input_tokens": given, "output_tokens": 100, "total_tokens": given + 100}
            return {"type": "image_generation.completed", "b64_json": "A" * 300_000, "usage": usage}

        request = request_of(IMAGES, prompt="x", n=2, stream=True)
        partial = {"type": "image_generation.partial_image", "b64_json": "A" * 300_000, "partial_image_index": 0}
        reading = read_stream(IMAGES, sse(partial, done(5), partial, done(0)), request=request)
        assert reading.final
        assert buckets(reading.usage) == {"input_tokens": 5, "output_image_tokens": 200, "image_count": 2}
        assert not read_stream(IMAGES, sse(partial), request=request).final
        untold = {"type": "image_generation.completed", "b64_json": "A"}
        assert not read_stream(IMAGES, sse(done(5), untold), request=request).final

    @pytest.mark.parametrize("fields", [{"n": 0}, {"n": "2"}, {"stream": "yes"}])
    def test_fields_of_the_wrong_form_are_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ArgumentError):
            request_of(IMAGES, **fields)


class TestSpeech:
    def test_characters_are_exact_before_and_after(self) -> None:
        engine = PricingEngine(PricingConfigData.model_validate({"models": {"m": {"per_1m_characters": 1_000_000}}}))
        request = request_of(SPEECH, input="héllo")
        assert engine.estimate(worst(request)) == 5
        assert engine.calculate(estimate_usage(request, delivered_bytes=0)).total == 5

    def test_sound_is_bounded_by_the_slowest_voice(self) -> None:
        request = request_of(SPEECH, input="x" * 150, instructions="y" * 50)
        assert buckets(estimate_usage(request, delivered_bytes=0)) == {
            "input_tokens": 50,
            "output_audio_tokens": 200,
            "input_characters": 150,
        }
        assert worst(request).output_audio_tokens == 600
        assert worst(request_of(SPEECH, input="x" * 150, speed=0.25)).output_audio_tokens == 2_400
        assert worst(request_of(SPEECH, input="x" * 150, speed=1e-9)).output_audio_tokens == 2_400

    @pytest.mark.parametrize("speed", ["1", True, -1, math.nan])
    def test_a_speed_that_is_none_is_refused(self, speed: object) -> None:
        with pytest.raises(ArgumentError):
            request_of(SPEECH, input="x", speed=speed)

    def test_a_stream_tells_its_usage_at_the_end(self) -> None:
        request = request_of(SPEECH, input="hello", stream_format="sse")
        done = {"type": "speech.audio.done", "usage": {"input_tokens": 2, "output_tokens": 9, "total_tokens": 11}}
        delta = {"type": "speech.audio.delta", "audio": "A" * 100_000}
        reading = read_stream(SPEECH, sse(delta, done), request=request)
        assert reading.final
        assert buckets(reading.usage) == {"input_tokens": 2, "output_audio_tokens": 9, "input_characters": 5}
        assert reading.problems == ()


class TestTranscriptions:
    def test_a_recording_is_bounded_by_its_bytes(self) -> None:
        request = request_of(TRANSCRIPTIONS, file=RECORDING, prompt="names")
        assert buckets(worst(request)) == {
            "input_tokens": 5,
            "input_audio_tokens": 1_600,
            "output_tokens": 800,
            "audio_milliseconds": 80_000,
        }
        assert estimate_usage(request, delivered_bytes=0).audio_milliseconds == 30_000

    def test_a_stream(self) -> None:
        usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
        events = ({"type": "transcript.text.delta", "delta": "abc"}, {"type": "transcript.text.done", "usage": usage})
        request = request_of(TRANSCRIPTIONS, file=RECORDING, stream=True)
        reading = read_stream(TRANSCRIPTIONS, sse(*events), request=request)
        assert reading.final
        assert reading.delivered_bytes == 3
        assert buckets(reading.usage) == {"input_audio_tokens": 14, "output_tokens": 3}
        assert read_stream(TRANSCRIPTIONS, sse(events[0]), request=request).usage is None

    def test_json_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match="multipart"):
            TRANSCRIPTIONS.parse(b'{"model": "m"}')
