"""What a model route has to know about its provider's wire format: the interface, pure and without I/O.

One file per format implements it: `CallRequest` is what a request says, `UsageReading` what an answer says
that the call used, `StreamReader` the same over the events of a stream. A new format is one more file with a
`Provider`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from ducto.errors import ArgumentError
from ducto.middleware.providers.jsontext import parse_request
from ducto.middleware.providers.numbers import Problems
from ducto.middleware.providers.repeated import RepeatedEvent
from ducto.middleware.sse import SSEEvent, SSEParser
from ducto.usage import UsageMetrics

__all__ = [
    "CacheWrite",
    "CallRequest",
    "Dialect",
    "Provider",
    "StreamParser",
    "StreamReader",
    "UnboundedInput",
    "UsageReading",
    "checked_limit",
    "served_tier",
]

#: Whose error bodies the caller expects.
Dialect = Literal["openai", "anthropic", "gemini", "bedrock"]

#: Input that the request's own bytes do not bound: a conversation that the provider keeps, tools that the
#: provider runs (their results are input), a file that the provider fetches, sound.
UnboundedInput = Literal["stored_context", "hosted_tools", "remote_file", "audio"]

#: Events from which is learned without use, one after the other.
MAX_FRUITLESS = 16

#: How long the prompt asks to be cached; a write costs more than plain input.
CacheWrite = Literal["5m", "1h"]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What a request body says about its cost, read once."""

    #: `None` if the request names none.
    model: str | None
    stream: bool = False
    #: The client itself asked for the usage of its stream (`stream_options.include_usage` of OpenAI's chat
    #: and completions), so the chunk that carries it belongs to the client.
    usage_requested: bool = False
    #: Tokens of output for *one* choice, reasoning included; `None` where the request does not bound it.
    output_limit: int | None = None
    #: The whole output is at most `choices` x the output limit.
    choices: int = 1
    #: Bytes of the JSON body without the image data in it: no text has more tokens than bytes.
    input_bytes: int = 0
    #: Images in the input, inline or by address.
    images: int = 0
    #: Reasons why the input may be larger than its bytes say.
    unbounded_input: frozenset[UnboundedInput] = frozenset()
    cache_write: CacheWrite | None = None
    #: As requested; an answer says what was really served.
    service_tier: str | None = None
    speed: str | None = None
    #: Images that the answer may hold; their tokens are beside the output limit.
    output_images: int = 0
    #: Web searches that the provider may run for the call, where the request bounds them.
    web_searches: int = 0
    #: The most that the call may use, and what one like it usually uses, where bytes and an output limit do not say
    #: it: images and sound that are made, recordings.
    worst_case: UsageMetrics | None = None
    typical: UsageMetrics | None = None


@dataclass(frozen=True, slots=True)
class UsageReading:
    """What an answer says that the call used.

    `usage` is `None` where it is missing or unusable. Its `model` is the *requested* one, by which the call
    was admitted and is priced; `model` here is the one that the provider answered with.
    """

    usage: UsageMetrics | None = None
    #: The figures are of the finished call. False with a `usage` means: at least this much (a stream that was
    #: cut, or whose last figures were unusable); treat it as missing and give it to `estimate_usage` as
    #: `known`.
    final: bool = False
    #: The provider said that nothing was used: charge nothing, and do not estimate.
    explicit_zero: bool = False
    #: What was wrong with the figures, for the log; holds no text of the user.
    problems: tuple[str, ...] = ()
    model: str | None = None
    service_tier: str | None = None
    #: Bytes (UTF-8) of text that the answer delivered: content, reasoning, refusals, arguments of tool calls.
    delivered_bytes: int = 0


class StreamParser(Protocol):
    """Cuts the bytes of one stream into items without losing any: `SSEParser`, and the like for other framings."""

    def feed(self, chunk: bytes, /) -> list[SSEEvent]:
        """The items that `chunk` completed; the `raw` of all items together is the input."""
        ...

    def flush(self) -> SSEEvent | None:
        """What is left at the end of the stream, `None` if nothing is."""
        ...


class StreamReader(ABC):
    """Reads the events of one stream in order. It never raises, whatever the bytes are."""

    def __init__(self, *, request: CallRequest) -> None:
        self.request = request
        #: The terminal event was seen: the provider has said all that it will say.
        self.finished = False
        #: The provider reported an error within the stream.
        self.failed = False
        #: Bytes (UTF-8) of text delivered so far, see `UsageReading.delivered_bytes`.
        self.delivered_bytes: int = 0
        self.problems: Problems = Problems()
        #: Events that deliver nothing but text, as one before them did.
        self._repeated: RepeatedEvent | None = None
        self._fruitless = 0

    def feed_repeated(self, raw: bytes) -> bytes | None:
        """Take a whole event by its bytes if it differs from one that was fed in nothing but the text that it delivers.

        Returns what the client is to see of it, and `None` if it has to be parsed and fed.
        """
        if self._repeated is None:
            return None
        found = self._repeated.read(raw)
        if found is None:
            return None
        self._fruitless = 0
        self.delivered_bytes += found[0]
        return found[1]

    def _learn(self, raw: bytes, text: str, *, shown: bytes) -> None:
        """Know events like this one again: all that it said is said already, but for its `text`.

        Where no event is like the one before, it is given up soon.
        """
        if self._fruitless < MAX_FRUITLESS:
            self._fruitless += 1
            self._repeated = RepeatedEvent.learn(raw, text, shown=shown) or self._repeated

    @abstractmethod
    def feed(self, event: SSEEvent) -> bool:
        """Take one item of the stream's parser. True for the extra event that only `ask_for_usage` made the
        provider send.

        Such an event is to be hidden from a client that did not ask for it. What else that made the provider add
        to an event is taken out of its `raw`.
        """

    @abstractmethod
    def reading(self) -> UsageReading:
        """What is known so far; may be called at any time, and again."""


class Provider(ABC):
    """One kind of model route. Instances do not change, and are shared by all requests that `bind` to them."""

    #: Short and stable: for logs and as the operation type of a reservation.
    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    #: The smallest output limit that the provider accepts.
    smallest_output_limit: ClassVar[int] = 1

    def bind(self, *, model: str | None, headers: Iterable[tuple[bytes, bytes]]) -> Provider:
        """The provider of one request: itself, unless more than the body decides about how to read it.

        `model` is the name that the path has, `None` if it has none; `headers` are those of the request.
        """
        return self

    def parse(self, body: bytes) -> dict[str, Any]:
        """The fields in a request's body, by name. Raises `ArgumentError` for what cannot be read for certain."""
        return parse_request(body)

    def stream_parser(self, media_type: str, *, request: CallRequest) -> StreamParser | None:
        """A parser for an answer of this media type, `None` where such an answer is no stream."""
        return SSEParser() if media_type == "text/event-stream" else None

    @abstractmethod
    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        """Read the parsed JSON of a request, which had `body_bytes` bytes on the wire.

        Raises `ArgumentError` for a body that is no object, for fields that decide about the cost with values
        of the wrong type or range, and for what cannot be metered.
        """

    def ask_for_usage(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """A copy of `body` that asks for the usage of its stream; `None` if there is nothing to ask for."""
        return None

    def limit_output(self, body: dict[str, Any], *, tokens: int) -> dict[str, Any]:
        """A copy of `body` whose output is limited to `tokens` for one choice; a lower limit in it stays.

        Where there is no such limit (`CallRequest.output_limit` is then 0) the copy is unchanged. Raises
        `ArgumentError` for `tokens` below 1.
        """
        checked_limit(tokens)
        return dict(body)

    @abstractmethod
    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        """Read the parsed JSON of a successful plain answer, `None` for one that is no JSON. Never raises."""

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        """A new reader for the answer to `request`."""
        return _NoStream(request=request)


class _NoStream(StreamReader):
    """A server that streams what is never streamed is not understood: its usage is missing."""

    def feed(self, event: SSEEvent) -> bool:
        self.problems.add("the answer came as a stream, which is not a known form of it")
        return False

    def reading(self) -> UsageReading:
        return UsageReading(problems=self.problems.as_tuple())


def checked_limit(tokens: int) -> int:
    """`tokens` if it can be an output limit. Raises `ArgumentError` otherwise."""
    if type(tokens) is not int or tokens < 1:
        raise ArgumentError(f"An output limit must be a whole number of at least 1 token, not {tokens!r}.")
    return tokens


def served_tier(answered: str | None, *, request: CallRequest) -> str | None:
    """The tier to price by: what the answer says, else the dearer tier that was asked for.

    A discount that was asked for but is not confirmed is not given.
    """
    if answered is not None:
        return answered
    return request.service_tier if request.service_tier == "priority" else None
