"""The simulated provider: its routes, its script, its record of requests, and how an answer is sent."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto.testing.simulator.anthropic_wire import MessagesWire
from ducto.testing.simulator.bedrock_wire import ConverseWire
from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.gemini_wire import GeminiArrayWire, GeminiWire
from ducto.testing.simulator.openai_media_wire import ImagesWire, SpeechWire, TranscriptionWire
from ducto.testing.simulator.openai_wire import CompletionsWire, EmbeddingsWire, ResponsesWire
from ducto.testing.simulator.reply import Reply
from ducto.testing.simulator.wire import Wire

__all__ = ["Outcome", "ProviderSimulator", "SimulatedRequest"]

#: `aborted`: the client left before the answer was complete. `cut`: the simulator closed the connection.
Outcome = Literal["running", "completed", "aborted", "cut", "refused"]

#: Below `/v1beta/models/` and `/v1/models/`, where the path names the model.
_GEMINI = "models/{model:path}:"
WIRES: dict[str, Wire] = {
    "/v1/chat/completions": CompletionsWire("chat"),
    "/v1/completions": CompletionsWire("completions"),
    "/v1/responses": ResponsesWire(),
    "/v1/embeddings": EmbeddingsWire(),
    "/v1/images/generations": ImagesWire(),
    "/v1/images/edits": ImagesWire(),
    "/v1/images/variations": ImagesWire(),
    "/v1/audio/speech": SpeechWire(),
    "/v1/audio/transcriptions": TranscriptionWire(),
    "/v1/audio/translations": TranscriptionWire(),
    "/v1/messages": MessagesWire(),
    "/v1beta/openai/chat/completions": CompletionsWire("chat"),
    "/v1beta/openai/embeddings": EmbeddingsWire(),
    f"/v1beta/{_GEMINI}generateContent": GeminiWire(stream=False),
    f"/v1beta/{_GEMINI}streamGenerateContent": GeminiArrayWire(stream=True),
    f"/v1/{_GEMINI}generateContent": GeminiWire(stream=False),
    f"/v1/{_GEMINI}streamGenerateContent": GeminiArrayWire(stream=True),
    "/model/{model:path}/converse": ConverseWire(stream=False),
    "/model/{model:path}/converse-stream": ConverseWire(stream=True),
}
#: In place of the wire of a route, where the query has `alt=sse`.
_WITH_ALT_SSE: dict[str, Wire] = {
    path: GeminiWire(stream=True) for path in WIRES if path.endswith("streamGenerateContent")
}


@dataclass(slots=True)
class SimulatedRequest:
    """One request that the simulator got, and what became of it."""

    path: str
    headers: dict[str, str]
    raw_body: bytes
    body: Any
    fault: Fault
    #: What the answer truly used, also if the answer does not tell it, or tells something else.
    reply: Reply | None = None
    outcome: Outcome = "running"
    status: int | None = None
    #: Bytes of the answer's body that were sent, and events of a stream.
    sent_bytes: int = 0
    sent_events: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class ProviderSimulator:
    """A provider of language models on the wire, without a model: the routes of OpenAI, Anthropic, Gemini and Bedrock,
    plain and as streams.

    `app` is an ASGI app. What an answer looks like is decided for each request by its header `x-simulate`
    (the fields of a `Fault` as JSON) if it has one, else by the next scripted `Fault`, else by `default`.
    """

    def __init__(self, *, default: Fault | None = None) -> None:
        self.default: Fault = default or Fault()
        #: Every request so far, in the order of arrival.
        self.requests: list[SimulatedRequest] = []
        self._script: deque[Fault] = deque()
        self.app: ASGIApp = Starlette(
            routes=[
                Route(path, _Endpoint(self, wire, _WITH_ALT_SSE.get(path, wire)), methods=["POST"])
                for path, wire in WIRES.items()
            ]
        )

    def script(self, *faults: Fault) -> None:
        """Use each of `faults` for one of the next requests, in this order, after those scripted before."""
        self._script.extend(faults)

    def reset(self) -> None:
        """Forget the requests and the script."""
        self.requests.clear()
        self._script.clear()

    def next_fault(self, header: str | None) -> Fault:
        """The behaviour of the next request. `ValueError` for a header that cannot be read."""
        if header is not None:
            return Fault.from_json(header)
        return self._script.popleft() if self._script else self.default


class _Endpoint:
    """One route as an ASGI app, so that an answer may be cut, which no response object can be."""

    def __init__(self, simulator: ProviderSimulator, wire: Wire, wire_with_alt_sse: Wire) -> None:
        self._simulator = simulator
        self._wire = wire
        self._wire_with_alt_sse = wire_with_alt_sse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return
        problem = None
        wire = self._wire_with_alt_sse if request.query_params.get("alt") == "sse" else self._wire
        try:
            fault = self._simulator.next_fault(request.headers.get("x-simulate"))
        except (ValueError, TypeError) as error:
            fault, problem = Fault(status=400), str(error)
        record = SimulatedRequest(
            path=request.url.path,
            headers=dict(request.headers),
            raw_body=raw,
            body=wire.read(raw, request.headers.get("content-type", "")),
            fault=fault,
        )
        self._simulator.requests.append(record)
        exchange = _Exchange(record, wire, receive, send, problem=problem)
        await exchange.run(request.path_params.get("model"))


class _Exchange:
    """The answer to one request."""

    def __init__(
        self, record: SimulatedRequest, wire: Wire, receive: Receive, send: Send, *, problem: str | None
    ) -> None:
        self._record = record
        self._wire = wire
        self._fault = record.fault
        self._receive = receive
        self._send = send
        self._problem = problem

    async def run(self, model: str | None) -> None:
        """Answer, but stop at once when the client leaves. `model` is the one that the path names."""
        answer = asyncio.create_task(self._answer(model))
        gone = asyncio.create_task(self._client_left())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
            else:
                self._record.outcome = "aborted"
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
            if self._record.outcome == "running":
                self._record.outcome = "aborted"
            self._record.ended.set()

    async def _client_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, model: str | None) -> None:
        fault, body, wire = self._fault, self._record.body, self._wire
        await asyncio.sleep(fault.delay_seconds)
        if fault.status is not None:
            await self._refuse(fault.status, self._problem or "simulated error")
        elif not isinstance(body, dict) or (model is None and not isinstance(body.get("model"), str)):
            await self._refuse(400, "the body must be a JSON object, and it or the path must name a model")
        else:
            reply = self._record.reply = wire.reply(body, fault, model=model)
            if wire.streams(body):
                await self._stream(wire.frames(body, reply, fault))
            else:
                await self._plain(*wire.plain(body, reply, fault))

    async def _refuse(self, status: int, message: str) -> None:
        headers = [(b"content-type", b"application/json")]
        if self._fault.retry_after_seconds is not None:
            headers.append((b"retry-after", str(self._fault.retry_after_seconds).encode()))
        body = self._fault.error_body or self._wire.error_body(message)
        await self._begin(status, headers)
        await self._write(json.dumps(body).encode(), last=True)
        self._record.outcome = "refused"

    async def _plain(self, media_type: str, content: bytes) -> None:
        length = str(len(content)).encode()
        await self._begin(200, [(b"content-type", media_type.encode()), (b"content-length", length)])
        if await self._write(content, last=True):
            self._record.outcome = "completed"

    async def _stream(self, frames: Iterator[bytes]) -> None:
        await self._begin(200, [(b"content-type", self._wire.stream_type.encode())])
        for number, frame in enumerate(frames):
            if number == self._fault.hang_after_events:
                await asyncio.Event().wait()
            if number:
                await asyncio.sleep(self._fault.chunk_delay_seconds)
            if not await self._write(frame, last=False):
                return
            self._record.sent_events += 1
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._record.outcome = "completed"

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._record.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, content: bytes, *, last: bool) -> bool:
        """Send `content`; false if the answer was cut within it, which makes the server close."""
        cut = self._fault.cut_after_bytes
        if cut is not None and self._record.sent_bytes + len(content) > cut:
            content, last = content[: cut - self._record.sent_bytes], False
            self._record.outcome = "cut"
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})
        self._record.sent_bytes += len(content)
        return self._record.outcome != "cut"
