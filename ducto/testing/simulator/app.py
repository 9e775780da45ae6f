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

from ducto.testing.simulator import anthropic_wire, openai_wire
from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply, reply_to

__all__ = ["Outcome", "ProviderSimulator", "SimulatedRequest"]

RouteName = Literal["chat", "completions", "responses", "embeddings", "messages"]

#: `aborted`: the client left before the answer was complete. `cut`: the simulator closed the connection.
Outcome = Literal["running", "completed", "aborted", "cut", "refused"]

PATHS: dict[str, RouteName] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
}
_LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
_GARBAGE = b'data: {"choices": [{"delta": \xff\xfe\n\n<html>oops</html>\ndata: NaN\r\rdata: [[[[\n\n: \n'


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
    """A provider of language models on the wire, without a model: OpenAI's and Anthropic's routes, plain and
    SSE.

    `app` is an ASGI app. What an answer looks like is decided for each request by its header `x-simulate`
    (the fields of a `Fault` as JSON) if it has one, else by the next scripted `Fault`, else by `default`.
    """

    def __init__(self, *, default: Fault | None = None) -> None:
        self.default = default or Fault()
        #: Every request so far, in the order of arrival.
        self.requests: list[SimulatedRequest] = []
        self._script: deque[Fault] = deque()
        self.app: ASGIApp = Starlette(
            routes=[Route(path, _Endpoint(self, name), methods=["POST"]) for path, name in PATHS.items()]
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

    def __init__(self, simulator: ProviderSimulator, name: RouteName) -> None:
        self._simulator = simulator
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return
        problem = None
        try:
            fault = self._simulator.next_fault(request.headers.get("x-simulate"))
        except (ValueError, TypeError) as error:
            fault, problem = Fault(status=400), str(error)
        record = SimulatedRequest(
            path=request.url.path,
            headers=dict(request.headers),
            raw_body=raw,
            body=_parsed(raw),
            fault=fault,
        )
        self._simulator.requests.append(record)
        exchange = _Exchange(record, receive, send, problem=problem)
        await exchange.run(self._name)


class _Exchange:
    """The answer to one request."""

    def __init__(self, record: SimulatedRequest, receive: Receive, send: Send, *, problem: str | None) -> None:
        self._record = record
        self._fault = record.fault
        self._receive = receive
        self._send = send
        self._problem = problem

    async def run(self, name: RouteName) -> None:
        """Answer, but stop at once when the client leaves."""
        answer = asyncio.create_task(self._answer(name))
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

    async def _answer(self, name: RouteName) -> None:
        fault, body = self._fault, self._record.body
        await asyncio.sleep(fault.delay_seconds)
        if fault.status is not None:
            await self._refuse(fault.status, self._problem or "simulated error", name)
        elif not isinstance(body, dict) or not isinstance(body.get("model"), str):
            await self._refuse(400, "the body must be a JSON object with a model", name)
        else:
            reply = self._record.reply = reply_to(body, fault, with_text=name != "embeddings")
            if body.get("stream") is True and name != "embeddings":
                await self._stream(_frames(name, body, reply, fault))
            else:
                await self._plain(_plain_body(name, body, reply, fault))

    async def _refuse(self, status: int, message: str, name: RouteName) -> None:
        headers = [(b"content-type", b"application/json")]
        if self._fault.retry_after_seconds is not None:
            headers.append((b"retry-after", str(self._fault.retry_after_seconds).encode()))
        body = self._fault.error_body or _error_body(name, message)
        await self._begin(status, headers)
        await self._write(json.dumps(body).encode(), last=True)
        self._record.outcome = "refused"

    async def _plain(self, body: dict[str, Any]) -> None:
        content = _GARBAGE if self._fault.garbage else json.dumps(body).encode()
        length = str(len(content)).encode()
        await self._begin(200, [(b"content-type", b"application/json"), (b"content-length", length)])
        if await self._write(content, last=True):
            self._record.outcome = "completed"

    async def _stream(self, frames: Iterator[bytes]) -> None:
        await self._begin(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
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


def _plain_body(name: RouteName, body: dict[str, Any], reply: Reply, fault: Fault) -> dict[str, Any]:
    if name == "messages":
        return anthropic_wire.message_body(reply, anthropic_wire.told_message_usage(reply, fault))
    if name == "responses":
        return openai_wire.responses_body(reply, openai_wire.told_responses_usage(reply, fault))
    if name == "embeddings":
        return openai_wire.embeddings_body(body, reply, openai_wire.told_embedding_usage(reply, fault))
    return openai_wire.chat_body(name, reply, openai_wire.told_completion_usage(reply, fault))


def _frames(name: RouteName, body: dict[str, Any], reply: Reply, fault: Fault) -> Iterator[bytes]:
    """The events of a stream as bytes, with what the fault does to them."""
    if fault.garbage:
        yield _GARBAGE
        return
    end = _LINE_ENDS[fault.line_end]
    for number, (event, data) in enumerate(_events(name, body, reply, fault)):
        if number == fault.error_after_events:
            yield _frame(_error_event(name), end)
            return
        yield _frame((event, data), end)


def _events(name: RouteName, body: dict[str, Any], reply: Reply, fault: Fault) -> Iterator[tuple[str | None, str]]:
    if name in ("chat", "completions"):
        kind: openai_wire.Kind = "chat" if name == "chat" else "completions"
        for chunk in openai_wire.completion_chunks(kind, body, reply, fault):
            yield None, json.dumps(chunk)
        if not fault.without_end:
            yield None, "[DONE]"
        return
    made = (
        anthropic_wire.message_events(reply, fault)
        if name == "messages"
        else openai_wire.responses_events(reply, fault)
    )
    events = list(made)
    for event in events[:-1] if fault.without_end else events:
        yield event["type"], json.dumps(event)


def _frame(event: tuple[str | None, str], end: bytes) -> bytes:
    kind, data = event
    named = b"" if kind is None else b"event: " + kind.encode() + end
    return named + b"data: " + data.encode() + end + end


def _error_event(name: RouteName) -> tuple[str | None, str]:
    message = "simulated error in the stream"
    if name == "messages":
        return "error", json.dumps(_error_body(name, message))
    if name == "responses":
        error = {"type": "error", "code": "server_error", "message": message, "param": None}
        return "error", json.dumps({**error, "sequence_number": 0})
    return None, json.dumps(_error_body(name, message))


def _error_body(name: RouteName, message: str) -> dict[str, Any]:
    if name == "messages":
        return {"type": "error", "error": {"type": "api_error", "message": message}}
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
