"""The tools that an answer called come out by name, whoever runs them, so that each can have a price."""

from __future__ import annotations

from typing import Any

import pytest

from ducto.middleware.providers import (
    DEFAULT_ROUTES,
    AnthropicMessages,
    CallRequest,
    OpenAIChat,
    OpenAIResponses,
    Provider,
    UsageReading,
)
from ducto.middleware.providers.tool_calls import MAX_TOOL_CALLS
from ducto.pricing.config import PricingConfigData
from ducto.pricing.engine import PricingEngine
from tests.providers.support import read_stream, sse

CHAT, RESPONSES, MESSAGES = OpenAIChat(), OpenAIResponses(), AnthropicMessages()
GEMINI, CONVERSE = DEFAULT_ROUTES["/v1/models/{model}:generateContent"], DEFAULT_ROUTES["/model/{model}/converse"]
REQUEST = CallRequest(model="m")
CHAT_USAGE = {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}
TOKENS = {"usage": {"input_tokens": 5, "output_tokens": 2}}


def names(reading: UsageReading) -> list[str]:
    assert reading.usage is not None
    return [call.name for call in reading.usage.tool_calls]


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": "{}"}, **fields}


@pytest.mark.parametrize(
    ("provider", "body", "expected"),
    [
        (
            CHAT,
            {
                **CHAT_USAGE,
                "choices": [
                    {"index": 0, "message": {"tool_calls": [function("a", id="1"), function("a", id="2")]}},
                    {"index": 1, "message": {"tool_calls": [{"custom": {"name": "b"}}, {"function": {"name": 5}}]}},
                    {"index": 2, "message": {"function_call": {"name": "c"}}},
                ],
            },
            ["a", "a", "b", "c"],
        ),
        (
            RESPONSES,
            {
                **TOKENS,
                "output": [
                    {"type": "function_call", "name": "f"},
                    {"type": "custom_tool_call", "name": "g"},
                    {"type": "mcp_call", "name": "h"},
                    {"type": "code_interpreter_call"},
                    {"type": "web_search_call", "action": {"type": "search"}},
                    {"type": "web_search_call", "action": {"type": "open_page"}},
                    {"type": "message"},
                ],
            },
            ["f", "g", "h", "code_interpreter", "web_search"],
        ),
        (
            MESSAGES,
            {
                "usage": {**TOKENS["usage"], "server_tool_use": {"web_search_requests": 2}},
                "content": [
                    {"type": "tool_use", "name": "f"},
                    {"type": "server_tool_use", "name": "web_search"},
                    {"type": "server_tool_use", "name": "bash_code_execution"},
                    {"type": "mcp_tool_use", "name": "h"},
                    {"type": "text", "name": "no"},
                ],
            },
            ["f", "bash_code_execution", "h", "web_search", "web_search"],
        ),
        (
            GEMINI,
            {
                "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 7},
                "candidates": [
                    {
                        "content": {"parts": [{"functionCall": {"name": "f"}}, {"executableCode": {"code": "1"}}]},
                        "groundingMetadata": {"webSearchQueries": ["a", "b"]},
                    }
                ],
            },
            ["f", "google_search", "code_execution"],
        ),
        (
            CONVERSE,
            {
                "usage": {"inputTokens": 5, "outputTokens": 2},
                "output": {"message": {"content": [{"text": "x"}, {"toolUse": {"name": "f", "input": {}}}]}},
            },
            ["f"],
        ),
    ],
)
def test_plain_answers(provider: Provider, body: dict[str, Any], expected: list[str]) -> None:
    assert names(provider.usage_from_body(body, request=REQUEST)) == expected


def test_a_chat_stream_names_each_call_once() -> None:
    def delta(*tools: dict[str, Any], index: int = 0) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": {"tool_calls": list(tools)}}]}

    stream = sse(
        delta({"index": 0, "id": "1", "function": {"name": "a", "arguments": ""}}),
        delta({"index": 0, "function": {"arguments": "{}"}}),
        delta({"index": 0, "function": {"name": "a", "arguments": "{}"}}),
        delta({"index": 1, "id": "2", "function": {"name": "a"}}),
        delta({"index": 0, "id": "3", "function": {"name": "b"}}, index=1),
        {"choices": [], **CHAT_USAGE},
        "[DONE]",
    )
    assert names(read_stream(CHAT, stream, request=REQUEST)) == ["a", "a", "b"]


def test_a_messages_stream() -> None:
    stream = sse(
        {"type": "message_start", "message": {**TOKENS}},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "code_execution"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    )
    reading = read_stream(MESSAGES, stream, request=REQUEST)
    assert names(reading) == ["f", "code_execution"]
    assert reading.usage is not None
    assert reading.usage.code_exec_calls == 1


def test_the_tools_of_a_response_too_large_to_keep() -> None:
    items = [{"type": "code_interpreter_call", "code": "1"}, {"type": "function_call", "name": "f"}]
    large = {"type": "message", "content": [{"type": "output_text", "text": "x" * 100_000}]}
    stream = sse(
        *({"type": "response.output_item.done", "item": item} for item in items),
        {"type": "response.completed", "response": {"output": [*items, large], **TOKENS}},
    )
    reading = read_stream(RESPONSES, stream, request=REQUEST)
    assert names(reading) == ["code_interpreter", "f"]
    assert reading.usage is not None
    assert reading.usage.code_exec_calls == 1


def test_the_list_is_bounded() -> None:
    calls = [function("f", index=number) for number in range(MAX_TOOL_CALLS + 5)]
    body = {**CHAT_USAGE, "choices": [{"message": {"tool_calls": calls}}]}
    assert len(names(CHAT.usage_from_body(body, request=REQUEST))) == MAX_TOOL_CALLS


def test_a_hosted_tool_has_a_price_by_its_name() -> None:
    engine = PricingEngine(
        PricingConfigData.model_validate({"models": {"m": {"input": 0}}, "tools": {"code_interpreter": "30"}})
    )
    body = {**TOKENS, "output": [{"type": "code_interpreter_call"}, {"type": "function_call", "name": "mine"}]}
    usage = RESPONSES.usage_from_body(body, request=REQUEST).usage
    assert usage is not None
    assert engine.calculate(usage).total == 30


def test_searches_that_the_request_bounds_are_reserved() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    bounded = MESSAGES.read_request({"model": "m", "max_tokens": 1, "tools": [tool]}, body_bytes=1)
    assert bounded.web_searches == 5
    fields = {"model": "m", "tools": [{"type": "web_search"}], "max_tool_calls": 3}
    assert RESPONSES.read_request(fields, body_bytes=1).web_searches == 3


def test_a_model_that_always_searches_is_charged_for_it() -> None:
    asked = CHAT.read_request({"model": "m", "web_search_options": {}}, body_bytes=1)
    usage = CHAT.usage_from_body(CHAT_USAGE, request=asked).usage
    assert usage is not None
    assert usage.web_search_calls == 1
    told = {"usage": {**CHAT_USAGE["usage"], "server_tool_use": {"web_search_requests": 4}}}
    usage = CHAT.usage_from_body(told, request=asked).usage
    assert usage is not None
    assert usage.web_search_calls == 4
