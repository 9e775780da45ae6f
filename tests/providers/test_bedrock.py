"""Bedrock's Converse: counts beside each other, a limit in one place, and the binary stream."""

from __future__ import annotations

from typing import Any

import pytest

from ducto.errors import ArgumentError
from ducto.middleware.providers import BedrockConverse, CallRequest, UsageReading, reserve_usage
from ducto.middleware.providers.aws_event_stream import MEDIA_TYPE
from ducto.testing.simulator.bedrock_wire import aws_message
from tests.providers.support import buckets, called, read_stream

PLAIN, STREAM = BedrockConverse(model="anthropic.claude"), BedrockConverse(stream=True, model="anthropic.claude")
REQUEST = CallRequest(model="anthropic.claude", input_bytes=400, stream=True)
USAGE = {
    "inputTokens": 10,
    "outputTokens": 7,
    "totalTokens": 67,
    "cacheReadInputTokens": 30,
    "cacheWriteInputTokens": 20,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 5}, {"ttl": "5m", "inputTokens": 15}],
}
BUCKETS = {
    "input_tokens": 10,
    "cache_read_tokens": 30,
    "cache_write_tokens": 15,
    "cache_write_1h_tokens": 5,
    "output_tokens": 7,
}


def read(usage: Any, **fields: Any) -> UsageReading:
    return PLAIN.usage_from_body({"usage": usage, **fields}, request=REQUEST)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, BUCKETS),
        ({"inputTokens": 10, "outputTokens": 7, "totalTokens": 17}, {"input_tokens": 10, "output_tokens": 7}),
        ({"inputTokens": 10, "outputTokens": 7}, {"input_tokens": 10, "output_tokens": 7}),
        ({"inputTokens": 10, "outputTokens": 7, "totalTokens": 20}, {"input_tokens": 10, "output_tokens": 10}),
        (
            {**USAGE, "cacheDetails": [{"ttl": "1d", "inputTokens": 20}]},
            {**BUCKETS, "cache_write_tokens": 0, "cache_write_1h_tokens": 20},
        ),
        ({**USAGE, "cacheDetails": None}, {**BUCKETS, "cache_write_tokens": 20, "cache_write_1h_tokens": 0}),
    ],
)
def test_recorded_usage(usage: dict[str, Any], expected: dict[str, int]) -> None:
    assert buckets(read(usage).usage) == {name: count for name, count in expected.items() if count}
    assert read(usage).final


def test_tier_and_latency_as_served() -> None:
    asked = PLAIN.read_request(
        {"serviceTier": {"type": "flex"}, "performanceConfig": {"latency": "optimized"}}, body_bytes=1
    )
    assert (asked.service_tier, asked.speed) == ("flex", "optimized")
    served = read(USAGE, serviceTier={"type": "flex"}, performanceConfig={"latency": "optimized"}).usage
    assert served is not None
    assert (served.service_tier, served.speed) == ("flex", "optimized")


@pytest.mark.parametrize(
    "usage",
    [None, 5, {}, {"inputTokens": 5}, {**USAGE, "inputTokens": -1}, {**USAGE, "cacheReadInputTokens": 1.5}],
)
def test_unusable_usage_is_missing_usage(usage: Any) -> None:
    assert read(usage).usage is None
    assert not read(usage).final


def test_zero_usage_is_told_apart() -> None:
    assert read({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}).explicit_zero


def events(*made: tuple[str, bytes]) -> bytes:
    return b"".join(aws_message(data, **{":message-type": "event", ":event-type": kind}) for kind, data in made)


START = events(
    ("messageStart", b'{"role":"assistant"}'),
    ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"hello"},"p":"abc"}'),
    ("contentBlockDelta", b'{"delta":{"reasoningContent":{"text":"hm"}}}'),
    ("contentBlockStart", b'{"start":{"toolUse":{"toolUseId":"t","name":"f"}}}'),
    ("contentBlockDelta", b'{"delta":{"toolUse":{"input":"{}"}}}'),
    ("messageStop", b'{"stopReason":"end_turn"}'),
)
END = events(("metadata", b'{"usage":{"inputTokens":10,"outputTokens":7,"totalTokens":17},"metrics":{}}'))


def test_a_stream() -> None:
    reading = read_stream(STREAM, START + END, request=REQUEST, media_type=MEDIA_TYPE)
    assert buckets(reading.usage) == {"input_tokens": 10, "output_tokens": 7, "tool_calls": called("f")}
    assert reading.final
    assert reading.delivered_bytes == 9
    broken_off = read_stream(STREAM, START, request=REQUEST, media_type=MEDIA_TYPE)
    assert broken_off.usage is None
    assert broken_off.delivered_bytes == 9


def test_an_exception_and_damage_within_a_stream() -> None:
    error = aws_message(b"{}", **{":message-type": "exception", ":exception-type": "throttlingException"})
    reader = STREAM.stream_reader(request=REQUEST)
    parser = STREAM.stream_parser(MEDIA_TYPE, request=REQUEST)
    assert parser is not None
    damaged = bytearray(END)
    damaged[-1] ^= 1
    for item in parser.feed(bytes(damaged) + error):
        reader.feed(item)
    assert (reader.failed, reader.finished) == (True, False)
    assert reader.reading().problems == ("a message of the stream is damaged",)


def test_large_metadata_still_tells_its_usage() -> None:
    data = b'{"metrics":{},"trace":{"x":"' + b"y" * 100_000 + b'"},"usage":{"inputTokens":10,"outputTokens":7}}'
    stream = START + events(("metadata", data))
    assert read_stream(STREAM, stream, request=REQUEST, media_type=MEDIA_TYPE).final
    reader = STREAM.stream_reader(request=REQUEST)
    parser = STREAM.stream_parser(MEDIA_TYPE, request=REQUEST)
    assert parser is not None
    for at in range(0, len(stream), 5_000):
        for item in parser.feed(stream[at : at + 5_000]):
            reader.feed(item)
    assert buckets(reader.reading().usage)["output_tokens"] == 7


def test_what_a_request_says() -> None:
    body = {
        "inferenceConfig": {"maxTokens": 50},
        "system": [{"text": "x"}, {"cachePoint": {"type": "default"}}],
        "messages": [
            {"content": [{"image": {"format": "png", "source": {"bytes": "A" * 300}}}]},
            {"content": [{"toolResult": {"content": [{"document": {"source": {"s3Location": {}}}}]}}]},
        ],
        "toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}, {"cachePoint": {"ttl": "1h"}}]},
    }
    request = PLAIN.read_request(body, body_bytes=1_000)
    assert (request.model, request.output_limit, request.images) == ("anthropic.claude", 50, 1)
    assert (request.input_bytes, request.cache_write) == (700, "1h")
    assert request.unbounded_input == {"remote_file", "hosted_tools"}
    assert reserve_usage(request, default_output_limit=9).cache_write_1h_tokens == 700
    assert PLAIN.limit_output(body, tokens=20)["inferenceConfig"] == {"maxTokens": 20}
    assert PLAIN.limit_output({}, tokens=20) == {"inferenceConfig": {"maxTokens": 20}}


@pytest.mark.parametrize(
    "body",
    [
        {"inferenceConfig": {"maxTokens": 5}, "additionalModelRequestFields": {"max_tokens": 50_000}},
        {"inferenceConfig": []},
        {"inferenceConfig": {"maxTokens": 0}},
    ],
)
def test_a_second_limit_and_one_of_the_wrong_form_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        PLAIN.read_request(body, body_bytes=1)
