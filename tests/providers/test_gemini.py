"""Gemini's own API: its sums, its two framings, and its two spellings of every name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ducto.errors import ArgumentError
from ducto.middleware.providers import CallRequest, GeminiGenerate, OpenAIChat, UsageReading, estimate_usage
from ducto.middleware.providers.estimate import reserve_usage
from tests.providers.support import buckets, called, read_stream, sse

PLAIN, STREAM = GeminiGenerate(model="gemini-2.5-pro"), GeminiGenerate(stream=True, model="gemini-2.5-pro")
REQUEST = CallRequest(model="gemini-2.5-pro", input_bytes=400, stream=True)
FINISHED = [{"content": {"parts": [{"text": "héllo"}]}, "finishReason": "STOP", "index": 0}]


def read(usage: Any, **fields: Any) -> UsageReading:
    body = {"usageMetadata": usage, "candidates": FINISHED, "modelVersion": "gemini-2.5-pro-002", **fields}
    return PLAIN.usage_from_body(body, request=REQUEST)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
            {"input_tokens": 10, "output_tokens": 5},
        ),
        (  # thoughts beside the candidates, as the total tells
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 40,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 112,
            },
            {"input_tokens": 60, "cache_read_tokens": 40, "output_tokens": 5, "reasoning_tokens": 7},
        ),
        (  # thoughts within the candidates
            {"promptTokenCount": 10, "candidatesTokenCount": 12, "thoughtsTokenCount": 7, "totalTokenCount": 22},
            {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 7},
        ),
        (  # what tools brought in is input beside the prompt
            {
                "promptTokenCount": 10,
                "toolUsePromptTokenCount": 30,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 2,
                "totalTokenCount": 47,
            },
            {"input_tokens": 40, "output_tokens": 5, "reasoning_tokens": 2},
        ),
        (  # counts that are 0 are left out
            {"promptTokenCount": 10, "totalTokenCount": 10},
            {"input_tokens": 10},
        ),
        (
            {"promptTokenCount": 10, "thoughtsTokenCount": 7, "totalTokenCount": 17},
            {"input_tokens": 10, "reasoning_tokens": 7},
        ),
        (  # a server that tells no total
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7},
            {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 7},
        ),
        (  # what the total has beyond its parts was written
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 40},
            {"input_tokens": 10, "output_tokens": 30},
        ),
        ({"candidatesTokenCount": 5, "totalTokenCount": 15}, {"input_tokens": 10, "output_tokens": 5}),
        (
            {
                "promptTokenCount": 100,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 10},
                    {"modality": "AUDIO", "tokenCount": 60},
                    {"modality": "IMAGE", "tokenCount": 20},
                    {"modality": "VIDEO", "tokenCount": 10},
                ],
                "candidatesTokenCount": 1290,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
                "totalTokenCount": 1390,
            },
            {"input_tokens": 20, "input_audio_tokens": 60, "input_image_tokens": 20, "output_image_tokens": 1290},
        ),
    ],
)
def test_recorded_usage(usage: dict[str, Any], expected: dict[str, int]) -> None:
    reading = read(usage)
    assert buckets(reading.usage) == expected
    assert reading.final
    assert reading.model == "gemini-2.5-pro-002"
    assert reading.delivered_bytes == len("héllo".encode())
    assert reading.problems == ()


def test_what_a_search_brought_in_is_paid_with_the_search() -> None:
    usage = {"promptTokenCount": 10, "toolUsePromptTokenCount": 30, "candidatesTokenCount": 5, "totalTokenCount": 45}
    searched = {**FINISHED[0], "groundingMetadata": {"webSearchQueries": ["a", "b"]}}
    assert buckets(read(usage, candidates=[searched]).usage) == {
        "input_tokens": 10,
        "output_tokens": 5,
        "web_search_calls": 1,
        "search_queries": 2,
        "tool_calls": called("google_search"),
    }
    with_pages = {**searched, "urlContextMetadata": {"urlMetadata": []}}
    assert buckets(read(usage, candidates=[with_pages]).usage)["input_tokens"] == 40


@pytest.mark.parametrize(
    "usage",
    [
        None,
        5,
        {},
        {"candidatesTokenCount": 5},
        {"promptTokenCount": -1, "totalTokenCount": 5},
        {"promptTokenCount": 1, "candidatesTokenCount": "5"},
        {"promptTokenCount": 1.5},
    ],
)
def test_unusable_usage_is_missing_usage(usage: Any) -> None:
    reading = read(usage)
    assert reading.usage is None
    assert not reading.final


def test_zero_usage_is_told_apart() -> None:
    assert read({"promptTokenCount": 0, "totalTokenCount": 0}).explicit_zero


def chunks() -> list[dict[str, Any]]:
    def chunk(text: str, written: int, **fields: Any) -> dict[str, Any]:
        candidate = {"content": {"parts": [{"text": text}]}, "index": 0, **fields}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": written, "totalTokenCount": 10 + written}
        return {"candidates": [candidate], "usageMetadata": usage}

    return [chunk("a[b", 1), chunk('c"}\\', 2), chunk("", 3, finishReason="STOP")]


@pytest.mark.parametrize("form", ["sse", "array"])
def test_both_forms_of_a_stream(form: str) -> None:
    def stream(parts: list[dict[str, Any]]) -> UsageReading:
        if form == "sse":
            return read_stream(STREAM, sse(*parts), request=REQUEST)
        array = json.dumps(parts, indent=1).encode()
        return read_stream(STREAM, array, request=REQUEST, media_type="application/json")

    whole = stream(chunks())
    assert buckets(whole.usage) == {"input_tokens": 10, "output_tokens": 3}
    assert whole.final
    assert whole.delivered_bytes == 7
    broken_off = stream(chunks()[:2])
    assert not broken_off.final
    assert estimate_usage(REQUEST, delivered_bytes=400, known=broken_off).output_tokens == 100


def test_a_blocked_prompt_ends_a_stream_and_an_error_fails_it() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    }
    assert read_stream(STREAM, sse(blocked), request=REQUEST).final
    reader = STREAM.stream_reader(request=REQUEST)
    parser = STREAM.stream_parser("text/event-stream", request=REQUEST)
    assert parser is not None
    for item in parser.feed(sse({"error": {"code": 503}})):
        reader.feed(item)
    assert reader.failed


def test_a_chunk_with_an_image_too_large_to_keep_tells_its_usage() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "A" * 200_000}}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 1290, "totalTokenCount": 1300}
    chunk = {"candidates": [{"content": {"parts": [image]}, "finishReason": "STOP"}], "usageMetadata": usage}
    for stream, media_type in ((sse(chunk), "text/event-stream"), (json.dumps([chunk]).encode(), "application/json")):
        reading = read_stream(STREAM, stream, request=REQUEST, media_type=media_type)
        assert reading.final
        assert buckets(reading.usage) == {"input_tokens": 10, "output_tokens": 1290}


def test_a_plain_answer_is_no_stream() -> None:
    assert PLAIN.stream_parser("application/json", request=CallRequest(model="m")) is None
    assert OpenAIChat().stream_parser("application/json", request=REQUEST) is None


@pytest.mark.parametrize(
    ("config", "media"),
    [
        (
            {"generationConfig": {"maxOutputTokens": 50, "candidateCount": 2, "responseModalities": ["TEXT", "IMAGE"]}},
            {"inlineData": {"mimeType": "image/png", "data": "A" * 300}},
        ),
        (
            {"generation_config": {"max_output_tokens": 50, "candidate_count": 2, "response_modalities": ["IMAGE"]}},
            {"inline_data": {"mime_type": "image/png", "data": "A" * 300}},
        ),
    ],
)
def test_a_request_in_both_spellings(config: dict[str, Any], media: dict[str, Any]) -> None:
    body = {"contents": [{"parts": [{"text": "x"}, media]}], "tools": [{"googleSearch": {}}], **config}
    request = PLAIN.read_request(body, body_bytes=1_000)
    assert (request.model, request.output_limit, request.choices) == ("gemini-2.5-pro", 50, 2)
    assert (request.images, request.input_bytes, request.output_images) == (1, 700, 2)
    assert request.unbounded_input == {"hosted_tools"}
    bound = reserve_usage(request, default_output_limit=9)
    assert (bound.output_tokens, bound.output_image_tokens) == (100, 20_000)
    limited = PLAIN.limit_output(body, tokens=20)
    assert PLAIN.read_request(limited, body_bytes=1_000).output_limit == 20
    assert limited.keys() == body.keys()


def test_a_limit_is_added_where_there_is_none() -> None:
    assert PLAIN.limit_output({}, tokens=20) == {"generationConfig": {"maxOutputTokens": 20}}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"fileData": {"fileUri": "x"}}, "remote_file"),
        ({"inlineData": {"mimeType": "audio/wav", "data": "A"}}, "audio"),
        ({"functionResponse": {"parts": [{"inlineData": {"mimeType": "video/mp4"}}]}}, "audio"),
    ],
)
def test_input_that_bytes_do_not_bound_is_named(part: dict[str, Any], reason: str) -> None:
    assert PLAIN.read_request({"contents": [{"parts": [part]}]}, body_bytes=9).unbounded_input == {reason}
    assert PLAIN.read_request({"contents": [], "cachedContent": "c"}, body_bytes=9).unbounded_input == {
        "stored_context"
    }


@pytest.mark.parametrize(
    "body",
    [
        {"generationConfig": {}, "generation_config": {}},
        {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 50_000}},
        {"generationConfig": {"maxOutputTokens": "5"}},
        {"generationConfig": []},
        {"model": "models/gemini-dear"},
    ],
)
def test_a_request_that_two_readers_could_read_differently_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        PLAIN.read_request(body, body_bytes=1)
    assert PLAIN.read_request({"model": "models/gemini-2.5-pro"}, body_bytes=1).model == "gemini-2.5-pro"
