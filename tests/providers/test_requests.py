"""What the providers read in a request, refuse, add and limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ducto.errors import ArgumentError
from ducto.middleware.providers import (
    DEFAULT_ROUTES,
    AnthropicMessages,
    CallRequest,
    OpenAIChat,
    OpenAICompletions,
    OpenAIResponses,
    estimate_usage,
    parse_request,
    reserve_usage,
)
from ducto.middleware.providers.base import Provider

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
)
PROVIDERS = pytest.mark.parametrize("provider", DEFAULT_ROUTES.values(), ids=lambda provider: provider.name)


@pytest.mark.parametrize(
    ("provider", "body", "limit", "choices"),
    [
        (CHAT, {}, None, 1),
        (CHAT, {"max_tokens": 5, "n": None}, 5, 1),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 9, "n": 3}, 9, 3),
        (COMPLETIONS, {"max_tokens": 5, "n": 2, "best_of": 4, "prompt": ["a", "b"]}, 5, 8),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, None, 1),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, None, 2),
        (RESPONSES, {"max_output_tokens": 7}, 7, 1),
        (MESSAGES, {"max_tokens": 0}, 0, 1),
    ],
)
def test_output_bounds(provider: Provider, body: dict[str, Any], limit: int | None, choices: int) -> None:
    request = provider.read_request({"model": "m", **body}, body_bytes=10)
    assert (request.output_limit, request.choices) == (limit, choices)
    default = 1_000
    bound = reserve_usage(request, default_output_limit=default)
    assert bound.output_tokens == (default if limit is None else limit) * choices
    assert bound.input_tokens == 10


@pytest.mark.parametrize(
    "provider",
    [one for one in DEFAULT_ROUTES.values() if one.dialect != "bedrock"],
    ids=lambda provider: provider.name,
)
@pytest.mark.parametrize("body", [None, [], "x", 5, {"model": 5}, {"model": ""}, {"model": ["m"]}])
def test_bodies_without_a_readable_model_are_refused(provider: Provider, body: object) -> None:
    with pytest.raises(ArgumentError):
        provider.read_request(body, body_bytes=1)


@pytest.mark.parametrize("bad", [-1, True, 1.5, 5.0, "5", 2**53, math.nan, [5]], ids=repr)
@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (CHAT, "n"),
        (COMPLETIONS, "best_of"),
        (RESPONSES, "max_output_tokens"),
        (MESSAGES, "max_tokens"),
    ],
)
def test_counts_of_the_wrong_form_are_refused(provider: Provider, name: str, bad: object) -> None:
    with pytest.raises(ArgumentError, match=name):
        provider.read_request({"model": "m", name: bad}, body_bytes=1)


@pytest.mark.parametrize(
    "body",
    [{"n": 0}, {"stream": "true"}, {"stream": 1}, {"stream_options": []}, {"service_tier": 5}],
)
def test_other_fields_of_the_wrong_form_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        CHAT.read_request({"model": "m", **body}, body_bytes=1)


def test_a_background_response_is_refused() -> None:
    with pytest.raises(ArgumentError, match="background"):
        RESPONSES.read_request({"model": "m", "background": True}, body_bytes=1)


def test_usage_is_asked_for_only_where_the_client_did_not() -> None:
    assert CHAT.ask_for_usage({"stream": False}) is None
    assert CHAT.ask_for_usage({"stream": True, "stream_options": {"include_usage": True}}) is None
    body = {"stream": True, "stream_options": {"include_obfuscation": False}}
    assert CHAT.ask_for_usage(body) == {
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
    assert body["stream_options"] == {"include_obfuscation": False}
    assert RESPONSES.ask_for_usage({"stream": True}) is None
    assert MESSAGES.ask_for_usage({"stream": True}) is None
    asked = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert CHAT.read_request(asked, body_bytes=1).usage_requested


@pytest.mark.parametrize(
    ("provider", "body", "tokens", "expected"),
    [
        (CHAT, {}, 10, {"max_completion_tokens": 10}),
        (CHAT, {"max_tokens": 50}, 10, {"max_tokens": 10}),
        (
            CHAT,
            {"max_tokens": 5, "max_completion_tokens": 50},
            10,
            {"max_tokens": 5, "max_completion_tokens": 10},
        ),
        (COMPLETIONS, {"max_tokens": None}, 10, {"max_tokens": 10}),
        (RESPONSES, {"max_output_tokens": 5}, 10, {"max_output_tokens": 5}),
        (MESSAGES, {"max_tokens": 50}, 10, {"max_tokens": 10}),
        (
            MESSAGES,
            {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}},
            2000,
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
        ),
        (
            MESSAGES,
            {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}},
            1024,
            {"max_tokens": 1024, "thinking": {"type": "disabled"}},
        ),
    ],
)
def test_output_is_limited(provider: Provider, body: dict[str, Any], tokens: int, expected: dict[str, Any]) -> None:
    before = dict(body)
    assert provider.limit_output(body, tokens=tokens) == expected
    assert body == before


@PROVIDERS
@pytest.mark.parametrize("tokens", [0, -1, True])
def test_a_limit_below_one_is_refused(provider: Provider, tokens: int) -> None:
    with pytest.raises(ArgumentError):
        provider.limit_output({}, tokens=tokens)


def test_image_data_is_not_counted_as_text_but_text_in_disguise_is() -> None:
    url = "data:image/png;base64," + "A" * 1_000
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]
    request = CHAT.read_request({"model": "m", "messages": messages}, body_bytes=2_000)
    assert (request.images, request.input_bytes) == (1, 2_000 - len(url))
    assert reserve_usage(request, default_output_limit=1).input_image_tokens == 10_000
    disguised = {"model": "m", "tools": [{"function": {"parameters": {"content": [part]}}}]}
    assert CHAT.read_request(disguised, body_bytes=2_000).input_bytes == 2_000


def test_input_that_bytes_do_not_bound_is_named() -> None:
    stored = RESPONSES.read_request(
        {"model": "m", "previous_response_id": "r", "tools": [{"type": "web_search"}, {"type": "function"}]},
        body_bytes=1,
    )
    assert stored.unbounded_input == {"stored_context", "hosted_tools"}
    document = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}
    body = {"model": "m", "messages": [{"content": [{"type": "tool_result", "content": [document]}]}]}
    assert MESSAGES.read_request(body, body_bytes=1).unbounded_input == {"remote_file"}
    plain = {"model": "m", "tools": [{"type": "bash_20250124"}, {"name": "f"}]}
    assert MESSAGES.read_request(plain, body_bytes=1).unbounded_input == frozenset()


def test_a_cache_mark_is_reserved_as_a_write() -> None:
    def request(**fields: Any) -> CallRequest:
        return MESSAGES.read_request({"model": "m", "max_tokens": 1, **fields}, body_bytes=100)

    mark = {"type": "ephemeral"}
    assert request().cache_write is None
    assert request(system=[{"type": "text", "text": "x", "cache_control": mark}]).cache_write == "5m"
    long = request(tools=[{"cache_control": mark}], cache_control={**mark, "ttl": "1h"})
    assert long.cache_write == "1h"
    bound = reserve_usage(long, default_output_limit=1)
    assert (bound.input_tokens, bound.cache_write_1h_tokens) == (0, 100)


def test_an_estimate_from_bytes() -> None:
    request = CallRequest(model="m", input_bytes=401)
    usage = estimate_usage(request, delivered_bytes=5)
    assert (usage.model, usage.input_tokens, usage.output_tokens) == ("m", 101, 2)
    assert estimate_usage(request, delivered_bytes=0, input_tokens=7).input_tokens == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model": "cheap", "model": "dear"}',
        b'{"messages": [{"a": 1, "a": 2}]}',
        b'{"n": NaN}',
        b'{"n": -Infinity}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 10_000 + b"}",
    ],
)
def test_ambiguous_or_broken_json_is_refused(body: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_request(body)


def test_proper_json_is_read() -> None:
    assert parse_request('{"model": "é", "a": {"b": [1, {"b": 2}]}}'.encode()) == {
        "model": "é",
        "a": {"b": [1, {"b": 2}]},
    }
