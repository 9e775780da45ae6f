"""Recorded answers of each provider, and what their usage means in buckets without overlap."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto.middleware.providers import DEFAULT_ROUTES, CallRequest, estimate_usage, load_object, reserve_usage
from ducto.middleware.providers.base import Provider, UsageReading
from ducto.middleware.sse import SSEParser
from tests.providers.support import buckets, called, read_stream, sse

CHAT = DEFAULT_ROUTES["/v1/chat/completions"]
RESPONSES = DEFAULT_ROUTES["/v1/responses"]
EMBEDDINGS = DEFAULT_ROUTES["/v1/embeddings"]
MESSAGES = DEFAULT_ROUTES["/v1/messages"]
REQUEST = CallRequest(model="asked", input_bytes=400)

BAD_COUNTS = [-1, math.nan, math.inf, 1e308, 12.0, "12", 2**63, 2**53, True, {"value": 5}, [5]]


def read(provider: Provider, body: object) -> UsageReading:
    return provider.usage_from_body(body, request=REQUEST)


def stream(provider: Provider, *events: dict[str, Any] | str) -> UsageReading:
    return read_stream(provider, sse(*events), request=REQUEST)


CHAT_USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {
        "cached_tokens": 4,
        "cache_write_tokens": 2,
        "audio_tokens": 1,
        "text_tokens": 10,
    },
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1, "rejected_prediction_tokens": 2},
}
CHAT_BUCKETS = {
    "input_tokens": 4,
    "cache_read_tokens": 4,
    "cache_write_tokens": 2,
    "input_audio_tokens": 1,
    "output_tokens": 3,
    "reasoning_tokens": 3,
    "output_audio_tokens": 1,
}
RESPONSES_BODY = {
    "status": "completed",
    "model": "gpt-5-2026-01-01",
    "service_tier": "flex",
    "output": [
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "code_interpreter_call", "code": "1+1"},
        {"type": "file_search_call", "queries": ["x"]},
        {"type": "message", "content": [{"type": "output_text", "text": "héllo"}]},
    ],
    "usage": {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 18,
    },
    "tool_usage": {
        "web_search": {"num_requests": 2},
        "image_gen": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14},
    },
}
MESSAGES_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 3},
    "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 4},
    "service_tier": "standard",
    "speed": "fast",
    "inference_geo": None,
}
MESSAGES_BUCKETS = {
    "input_tokens": 10,
    "cache_read_tokens": 30,
    "cache_write_tokens": 15,
    "cache_write_1h_tokens": 5,
    "output_tokens": 4,
    "reasoning_tokens": 3,
    "web_search_calls": 1,
    "tool_calls": called("web_search"),
    "service_tier": "standard",
    "speed": "fast",
}


@pytest.mark.parametrize(
    ("provider", "body", "expected"),
    [
        (CHAT, {"usage": CHAT_USAGE, "service_tier": "default"}, {**CHAT_BUCKETS, "service_tier": "default"}),
        (
            CHAT,
            {"usage": {"prompt_tokens": 5, "completion_tokens": 2}},
            {"input_tokens": 5, "output_tokens": 2},
        ),
        (
            CHAT,  # a compatible server whose completion lacks the reasoning
            {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 17}},
            {"input_tokens": 5, "output_tokens": 12},
        ),
        (
            CHAT,  # LiteLLM's proxy in front of Anthropic
            {
                "usage": {
                    "prompt_tokens": 60,
                    "completion_tokens": 7,
                    "prompt_tokens_details": {
                        "cached_tokens": 30,
                        "cache_creation_tokens": 20,
                        "cache_creation_token_details": {
                            "ephemeral_5m_input_tokens": 15,
                            "ephemeral_1h_input_tokens": 5,
                        },
                    },
                    "server_tool_use": {"web_search_requests": 2},
                }
            },
            {
                "input_tokens": 10,
                "cache_read_tokens": 30,
                "cache_write_tokens": 15,
                "cache_write_1h_tokens": 5,
                "output_tokens": 7,
                "web_search_calls": 2,
            },
        ),
        (
            RESPONSES,  # a cache that keeps for half a day
            {
                "usage": {
                    "input_tokens": 50,
                    "output_tokens": 1,
                    "input_tokens_details": {
                        "cache_write_tokens": 40,
                        "cache_write_tokens_details": {"ttl_30m_tokens": 10, "ttl_12h_tokens": 30},
                    },
                }
            },
            {"input_tokens": 10, "cache_write_tokens": 10, "cache_write_1h_tokens": 30, "output_tokens": 1},
        ),
        (
            CHAT,  # cached sound is in both details, and is charged once, as sound
            {
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 0,
                    "prompt_tokens_details": {"cached_tokens": 90, "audio_tokens": 60},
                }
            },
            {"cache_read_tokens": 40, "input_audio_tokens": 60},
        ),
        (EMBEDDINGS, {"usage": {"prompt_tokens": 5, "total_tokens": 5}}, {"input_tokens": 5}),
        (
            RESPONSES,
            RESPONSES_BODY,
            {
                "input_tokens": 12,
                "cache_read_tokens": 4,
                "output_tokens": 4,
                "reasoning_tokens": 3,
                "output_image_tokens": 9,
                "web_search_calls": 2,
                "code_exec_calls": 1,
                "search_queries": 1,
                "tool_calls": called("code_interpreter", "file_search", "web_search", "web_search"),
                "service_tier": "flex",
            },
        ),
        (MESSAGES, {"usage": MESSAGES_USAGE}, MESSAGES_BUCKETS),
        (
            MESSAGES,
            {
                "usage": {
                    "input_tokens": 10,
                    "output_tokens": 7,
                    "iterations": [
                        {"type": "message", "input_tokens": 10, "output_tokens": 7},
                        {"type": "compaction", "input_tokens": 100, "output_tokens": 40},
                    ],
                }
            },
            {"input_tokens": 110, "output_tokens": 47},
        ),
    ],
)
def test_recorded_bodies(provider: Provider, body: dict[str, Any], expected: dict[str, Any]) -> None:
    reading = read(provider, body)
    assert buckets(reading.usage) == expected
    assert reading.usage is not None
    assert reading.usage.model == "asked"
    assert reading.final
    assert not reading.explicit_zero
    assert reading.problems == ()


def test_the_answering_model_and_the_delivered_text_are_told() -> None:
    reading = read(RESPONSES, RESPONSES_BODY)
    assert reading.model == "gpt-5-2026-01-01"
    assert reading.delivered_bytes == len("héllo".encode()) + len("1+1")


@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
@pytest.mark.parametrize(
    ("provider", "usage", "field"),
    [
        (CHAT, {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}, "prompt_tokens"),
        (CHAT, {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}, "completion_tokens"),
        (RESPONSES, {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}, "output_tokens"),
        (EMBEDDINGS, {"prompt_tokens": 5, "total_tokens": 5}, "prompt_tokens"),
        (MESSAGES, {"input_tokens": 5, "output_tokens": 5}, "input_tokens"),
        (MESSAGES, {"input_tokens": 5, "output_tokens": 5}, "output_tokens"),
        (MESSAGES, {"input_tokens": 5, "output_tokens": 5}, "cache_read_input_tokens"),
    ],
)
def test_an_unusable_total_is_missing_usage(provider: Provider, usage: dict[str, Any], field: str, bad: object) -> None:
    reading = read(provider, {"usage": {**usage, field: bad}})
    assert not reading.final
    assert not reading.explicit_zero
    assert any(field in problem for problem in reading.problems)


@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
def test_an_unusable_detail_never_lowers_the_bill(bad: object) -> None:
    chat = {"prompt_tokens": 10, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": bad}}
    assert buckets(read(CHAT, {"usage": chat}).usage) == {"input_tokens": 10, "output_tokens": 9}
    writes = {
        "input_tokens": 1,
        "output_tokens": 1,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": bad},
    }
    assert buckets(read(MESSAGES, {"usage": writes}).usage)["cache_write_1h_tokens"] == 20


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"cached_tokens": 11}, {"input_tokens": 10}),
        ({"audio_tokens": 50}, {"input_audio_tokens": 50}),
        ({"cache_write_tokens": 12}, {"cache_write_tokens": 12}),
    ],
)
def test_parts_above_the_total_charge_the_larger(details: dict[str, int], expected: dict[str, int]) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": details}
    reading = read(CHAT, {"usage": usage})
    assert buckets(reading.usage) == expected
    assert reading.problems


def test_more_reasoning_than_output_charges_the_larger() -> None:
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    assert buckets(read(CHAT, {"usage": usage}).usage) == {"input_tokens": 1, "reasoning_tokens": 9}


@pytest.mark.parametrize("provider", DEFAULT_ROUTES.values(), ids=lambda provider: provider.name)
@pytest.mark.parametrize("body", [None, [], "x", {}, {"usage": None}, {"usage": {}}, {"usage": [1]}, {"usage": 5}])
def test_missing_usage_is_not_zero_usage(provider: Provider, body: object) -> None:
    reading = read(provider, body)
    assert reading.usage is None
    assert not reading.final
    assert not reading.explicit_zero


@pytest.mark.parametrize(
    ("provider", "usage"),
    [
        (CHAT, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        (RESPONSES, {"input_tokens": 0, "output_tokens": 0}),
        (EMBEDDINGS, {"prompt_tokens": 0, "total_tokens": 0}),
        (MESSAGES, {"input_tokens": 0, "output_tokens": 0}),
    ],
)
def test_zero_usage_is_told_apart(provider: Provider, usage: dict[str, int]) -> None:
    reading = read(provider, {"usage": usage})
    assert reading.explicit_zero
    assert reading.final


def test_a_discount_that_the_answer_does_not_confirm_is_not_given() -> None:
    body = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    tiers = {"flex": None, "priority": "priority", None: None}
    for asked, priced in tiers.items():
        request = CallRequest(model="m", service_tier=asked)
        reading = CHAT.usage_from_body(body, request=request)
        assert reading.usage is not None
        assert reading.usage.service_tier == priced
        assert reserve_usage(request, default_output_limit=1).service_tier == priced
        assert estimate_usage(request, delivered_bytes=1).service_tier == priced


def chunk(text: str | None = None, **fields: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
USAGE_ONLY = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def test_chat_stream_with_the_extra_chunk() -> None:
    reader = CHAT.stream_reader(request=REQUEST)
    hidden = []
    for event in (chunk("a€", usage=None), END, USAGE_ONLY, "[DONE]"):
        data = event if isinstance(event, str) else json.dumps(event)
        (item,) = SSEParser().feed(f"data: {data}\n\n".encode())
        hidden.append(reader.feed(item))
    assert hidden == [False, False, True, False]
    assert reader.finished
    assert reader.delivered_bytes == 4
    assert reader.reading().final
    assert buckets(reader.reading().usage) == {"input_tokens": 5, "output_tokens": 2}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b'{"choices":[{}],"usage":null}', b'{"choices":[{}]}'),
        (b'{"choices":[{}], "usage" : null, "obfuscation":"x"}', b'{"choices":[{}], "obfuscation":"x"}'),
        (b'{"usage":null,"choices":[{}]}', b'{"choices":[{}]}'),
        (
            b'{"choices":[{"delta":{"content":",\\"usage\\":null"}}],"usage":null}',
            b'{"choices":[{"delta":{"content":",\\"usage\\":null"}}]}',
        ),
        # It cannot be told which of them was added.
        (b'{"choices":[{"x":1,"usage":null}],"usage":null}', None),
        (b'{"choices":[{"x":1,"usage":null}]}', None),
        (b'{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}', None),
    ],
)
def test_the_usage_that_is_null_is_taken_away_from_who_did_not_ask(sent: bytes, shown: bytes | None) -> None:
    frame = b"data: " + sent + b"\r\n\r\n"
    for asked in (False, True):
        reader = CHAT.stream_reader(request=CallRequest(model="m", stream=True, usage_requested=asked))
        (item,) = SSEParser().feed(frame)
        assert not reader.feed(item)
        assert item.raw == (frame if asked or shown is None else frame.replace(sent, shown))


def test_chat_stream_variants_of_compatible_servers() -> None:
    total = {"prompt_tokens": 5, "completion_tokens": 2}
    last = stream(CHAT, chunk("a"), {**END, "usage": total})
    assert last.final
    assert buckets(last.usage) == {"input_tokens": 5, "output_tokens": 2}
    running = [chunk("a", usage={**total, "completion_tokens": count}) for count in (1, 2, 3)]
    cut = stream(CHAT, *running)
    assert not cut.final
    assert buckets(cut.usage)["output_tokens"] == 3
    assert buckets(stream(CHAT, *running, "[DONE]").usage)["output_tokens"] == 3
    assert stream(CHAT, *running, "[DONE]").final


def test_the_last_valid_usage_of_a_chat_stream_counts() -> None:
    bad = {"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": 2}}
    reading = stream(CHAT, USAGE_ONLY, bad, "{broken", "[DONE]")
    assert buckets(reading.usage) == {"input_tokens": 5, "output_tokens": 2}
    assert len(reading.problems) == 2


def test_chat_stream_counts_all_kinds_of_text_and_an_error() -> None:
    delta = {
        "content": "12",
        "refusal": "34",
        "reasoning_content": "567",
        "reasoning": "567",
        "tool_calls": [{"index": 0, "function": {"arguments": "89"}}],
    }
    reader = CHAT.stream_reader(request=REQUEST)
    for event in ({"choices": [{"delta": delta}]}, {"error": {"message": "boom"}}):
        (item,) = SSEParser().feed(f"data: {json.dumps(event)}\n\n".encode())
        reader.feed(item)
    assert reader.delivered_bytes == 9
    assert reader.failed
    assert not reader.finished


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_responses_stream_ends_with_its_terminal_event(kind: str) -> None:
    reader = RESPONSES.stream_reader(request=REQUEST)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"model": "m", "usage": None}},
        {"type": "response.output_text.delta", "delta": "abc"},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
        {"type": f"response.{kind}", "response": RESPONSES_BODY},
    ]
    for event in events:
        (item,) = SSEParser().feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        assert reader.reading().usage is None
        reader.feed(item)
    assert (reader.finished, reader.failed) == (True, kind == "failed")
    assert reader.delivered_bytes == 5
    assert reader.reading().usage == read(RESPONSES, RESPONSES_BODY).usage


def test_a_terminal_event_too_large_to_keep_still_tells_its_usage() -> None:
    text = 'say "usage": {"input_tokens": 0, "output_tokens": 0} ' * 4_000
    response = {
        "status": "completed",
        "service_tier": "priority",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}],
        "tools": [{"parameters": {"usage": {"input_tokens": 0, "output_tokens": 0}}}],
        "usage": RESPONSES_BODY["usage"],
        "tool_usage": RESPONSES_BODY["tool_usage"],
    }
    for separators in ((",", ":"), (", ", ": ")):
        data = json.dumps({"type": "response.completed", "response": response}, separators=separators)
        reader = RESPONSES.stream_reader(request=REQUEST)
        parser = SSEParser()
        frame = f"event: response.completed\ndata: {data}\n\n".encode()
        for at in range(0, len(frame), 4_096):
            for item in parser.feed(frame[at : at + 4_096]):
                reader.feed(item)
        reading = reader.reading()
        assert reader.finished
        assert reading.final
        usage = buckets(reading.usage)
        assert (usage["input_tokens"], usage["output_tokens"], usage["web_search_calls"]) == (12, 4, 2)


def messages_events(**delta_usage: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "message_start",
            "message": {"model": "claude", "usage": {**MESSAGES_USAGE, "output_tokens": 1}},
        },
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "xxxx"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta_usage},
        {"type": "message_stop"},
    ]


def test_messages_stream_is_merged_by_overwriting() -> None:
    reading = stream(MESSAGES, *messages_events(output_tokens=7, input_tokens=None))
    assert buckets(reading.usage) == MESSAGES_BUCKETS
    assert reading.final
    assert reading.delivered_bytes == 7
    raised = stream(MESSAGES, *messages_events(output_tokens=9, input_tokens=12, cache_read_input_tokens=0))
    assert buckets(raised.usage) == {**MESSAGES_BUCKETS, "input_tokens": 12, "output_tokens": 6}


def test_a_cut_messages_stream_knows_its_input_and_estimates_its_output() -> None:
    reading = stream(MESSAGES, *messages_events(output_tokens=7)[:5])
    assert not reading.final
    usage = estimate_usage(REQUEST, delivered_bytes=400, known=reading)
    assert usage.cache_read_tokens == 30
    assert usage.total_output_tokens == 100


@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
def test_a_bad_final_output_of_a_messages_stream_is_not_final(bad: object) -> None:
    reading = stream(MESSAGES, *messages_events(output_tokens=bad))
    assert not reading.final
    assert reading.usage is not None
    assert reading.usage.input_tokens == 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "audio_tokens",
        "reasoning_tokens",
        "completion_tokens_details",
        "cache_creation",
        "cache_creation_input_tokens",
        "choices",
        "delta",
        "message",
        "content",
        "type",
        "response",
        "iterations",
        "output",
        "tool_usage",
        "web_search",
        "num_requests",
        "error",
        "tool_calls",
        *("usageMetadata", "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"),
        *("cachedContentTokenCount", "toolUsePromptTokenCount", "promptTokensDetails", "modality", "tokenCount"),
        *("candidates", "parts", "groundingMetadata", "webSearchQueries", "finishReason"),
        *("inputTokens", "outputTokens", "totalTokens", "cacheWriteInputTokens", "cacheDetails", "ttl"),
        *("data", "image_tokens", "svg_usage", "seconds", "duration", "input_token_details"),
    ]
)
KINDS = st.sampled_from(["message_start", "message_delta", "response.completed", "compaction", "x.delta"])
SHAPED = st.recursive(
    JSON | KINDS | st.integers(-2, 2**54),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=20,
)


@given(SHAPED)
@settings(max_examples=300, deadline=None)
def test_no_answer_raises_or_gives_a_negative_count(body: object) -> None:
    for provider in DEFAULT_ROUTES.values():
        reading = read(provider, body)
        assert reading.delivered_bytes >= 0
        reader = provider.stream_reader(request=REQUEST)
        for item in SSEParser().feed(f"data: {json.dumps(body)}\n\n".encode()):
            reader.feed(item)
        for found in (reading, reader.reading()):
            if found.usage is not None:
                assert found.usage.total_input_tokens >= 0
                assert estimate_usage(REQUEST, delivered_bytes=9, known=found).total_output_tokens >= 3


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    load_object(data)
    for provider in DEFAULT_ROUTES.values():
        reader = provider.stream_reader(request=REQUEST)
        parser = SSEParser()
        for item in parser.feed(b"data: " + data + b"\n\n"):
            reader.feed(item)
        assert reader.reading().delivered_bytes >= 0


@pytest.mark.parametrize("data", [b"[" * 60_000, b'{"a":' * 10_000, b"9" * 50_000, b'{"n": ' + b"9" * 5_000 + b"}"])
def test_json_bombs_are_no_object(data: bytes) -> None:
    assert load_object(data) is None
