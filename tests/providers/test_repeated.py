"""Events that are known again without parsing say what they would have said had they been parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto.middleware.answer_reading import StreamReading
from ducto.middleware.providers import DEFAULT_ROUTES, CallRequest, UsageReading
from ducto.middleware.providers.repeated import RepeatedEvent
from ducto.middleware.sse import SSEParser

CHAT = DEFAULT_ROUTES["/v1/chat/completions"]
COMPLETIONS = DEFAULT_ROUTES["/v1/completions"]
MESSAGES = DEFAULT_ROUTES["/v1/messages"]

TEXTS = st.sampled_from(
    ["a", "word", " word", "index", ":", ",", '"', "\\n", "\n", "é", "中", "content", "", "\x7f", "x" * 2_100]
)
SECOND = st.sampled_from([None, "", "b", "index"])


@st.composite
def chat_events(draw: st.DrawFn) -> bytes:
    """An event of a chat stream, mostly like others, in some way different from time to time."""
    delta: dict[str, Any] = {draw(st.sampled_from(["content", "content", "refusal", "reasoning"])): draw(TEXTS)}
    if (more := draw(SECOND)) is not None:
        delta[draw(st.sampled_from(["reasoning_content", "role", "refusal"]))] = more
    if draw(st.integers(0, 9)) == 0:
        delta["tool_calls"] = [{"index": 0, "function": {"name": "f", "arguments": draw(TEXTS)}}]
    body: dict[str, Any] = {"id": "c", "model": draw(st.sampled_from(["m", "m", "n"]))}
    body["choices"] = [{"index": 0, "delta": delta, "finish_reason": draw(st.sampled_from([None, None, None, "stop"]))}]
    if draw(st.booleans()):
        body["choices"] = [{"index": 0, "text": draw(TEXTS), "finish_reason": None}]
    if draw(st.booleans()):
        body["usage"] = draw(st.sampled_from([None, None, {"prompt_tokens": 4, "completion_tokens": 2}]))
    if draw(st.booleans()):
        body["obfuscation"] = draw(TEXTS)
    if draw(st.booleans()):
        body["service_tier"] = draw(st.sampled_from(["default", "priority", None]))
    if draw(st.integers(0, 9)) == 0:
        body["error"] = {"message": "x"}
    names = list(body)
    body = {name: body[name] for name in draw(st.permutations(names))} if draw(st.booleans()) else body
    text = json.dumps(
        body, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    )
    return b"data: " + text.encode()


@st.composite
def message_events(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["text_delta", "thinking_delta", "input_json_delta"]))
    name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
    delta = {"type": kind, name: draw(TEXTS)}
    body = {"type": "content_block_delta", "index": draw(st.integers(0, 1)), "delta": delta}
    return b"event: content_block_delta\ndata: " + json.dumps(body, ensure_ascii=draw(st.booleans())).encode()


def parsed(provider: Any, stream: bytes, request: CallRequest) -> tuple[bytes, UsageReading]:
    """What is read and shown where each event is parsed."""
    parser, reader = SSEParser(), provider.stream_reader(request=request)
    shown = b"".join(item.raw for item in parser.feed(stream) if not reader.feed(item))
    return shown, reader.reading()


@pytest.mark.parametrize("route", ["chat", "completions", "messages"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_stream_reads_as_if_every_event_were_parsed(route: str, data: st.DataObject) -> None:
    provider = {"chat": CHAT, "completions": COMPLETIONS, "messages": MESSAGES}[route]
    kinds = data.draw(st.lists(message_events() if route == "messages" else chat_events(), min_size=1, max_size=4))
    events = data.draw(st.lists(st.sampled_from(kinds), max_size=12))
    # The same event with another text is what is known again.
    events += [event.replace(b'"a"', b'"other"') for event in events] + [
        event.replace(b'"word"', b'"\xff"') for event in events
    ]
    request = CallRequest(model="m", stream=True, usage_requested=data.draw(st.booleans()))
    reading, shown, at_once = StreamReading(provider.stream_reader(request=request)), b"", data.draw(st.integers(1, 5))
    for start in range(0, len(events), at_once):
        shown += reading.feed_visible(b"".join(event + b"\n\n" for event in events[start : start + at_once]))
    stream = b"".join(event + b"\n\n" for event in events)
    assert (shown, reading._reader.reading()) == parsed(provider, stream, request)


def test_what_was_learned_before_another_tier_is_forgotten() -> None:
    """The event of the other tier is not learned, for its text is escaped."""
    request = CallRequest(model="m", stream=True)
    default, other = (event("a", service_tier="default"), event("a\nb", service_tier="priority"))
    stream = default + other + default + event("", usage={"prompt_tokens": 4, "completion_tokens": 2})
    reading = StreamReading(CHAT.stream_reader(request=request))
    shown = b"".join(reading.feed_visible(part + b"\n\n") for part in stream.split(b"\n\n")[:-1])
    assert (shown, reading._reader.reading()) == parsed(CHAT, stream, request)
    assert reading._reader.reading().service_tier == "default"


def test_a_text_that_is_escaped_is_not_looked_for_elsewhere() -> None:
    raw = b'data: {"id":"abc","choices":[{"delta":{"content":"\\u0061bc"}}]}\n\n'
    assert RepeatedEvent.learn(raw, "abc", shown=raw) is None


def event(text: str, **more: Any) -> bytes:
    body = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


@pytest.mark.parametrize("more", [{}, {"usage": None}, {"obfuscation": "xyz"}, {"usage": None, "obfuscation": "z"}])
def test_an_event_with_another_text_is_known_again(more: dict[str, Any]) -> None:
    parser, reader = SSEParser(), CHAT.stream_reader(request=CallRequest(model="m", stream=True))
    assert not reader.feed(parser.feed(event("first", **more))[0])
    hidden = {name: value for name, value in more.items() if name != "usage"}
    padded = {name: "longer padding" if name == "obfuscation" else value for name, value in more.items()}
    shown = {name: value for name, value in padded.items() if name in hidden}
    assert reader.feed_repeated(event("zwölf", **padded)) == event("zwölf", **shown)
    assert reader.delivered_bytes == len("first") + len("zwölf".encode())


@pytest.mark.parametrize(
    "other",
    [
        event("a\nb"),
        event('a"b'),
        event("x" * 3_000),
        event("a", more=1),
        event("a").replace(b'"a"', b'"\xff"'),
        event("a").replace(b'"a"', b'"\x01"'),
        event("a").replace(b'"a"', b'"\n"'),
        event("a").replace(b'"a"', b"1"),
        event("a").replace(b"null", b'"stop"'),
        b"data: [DONE]\n\n",
        b"\n\n",
    ],
)
def test_any_other_event_is_parsed(other: bytes) -> None:
    parser, reader = SSEParser(), CHAT.stream_reader(request=CallRequest(model="m", stream=True))
    reader.feed(parser.feed(event("first"))[0])
    assert reader.feed_repeated(event("second")) == event("second")
    assert reader.feed_repeated(other) is None


@pytest.mark.parametrize("text", ["", "id", ":", ",", "a\\", "c", "x" * 3_000])
def test_a_text_that_may_be_elsewhere_is_not_learned(text: str) -> None:
    raw = event(text)
    assert RepeatedEvent.learn(raw, text, shown=raw) is None
