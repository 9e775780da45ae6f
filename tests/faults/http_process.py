"""Clients that call the gateways over HTTP with bare sockets, as there are many of them and few processors."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from ducto.testing.simulator import input_tokens_of
from tests.faults.books import MODEL, Part, cost_of
from tests.faults.clients import Attempt, Client, run_clients
from tests.faults.lists import Call, ClientList

_TIMEOUT_SECONDS = 8.0
_STREAMS = 0.15
#: Of streams, those whose client hangs up on the way.
_LEAVES = 0.3


@dataclass(slots=True)
class _Request:
    text: bytes
    stream: bool
    #: Hang up after so many chunks.
    leaves_after: int | None


class HttpClient(Client):
    period_seconds = 0.25

    def __init__(self, part: Part, number: int, acknowledged: ClientList, incarnation: str) -> None:
        super().__init__(part, number, acknowledged, incarnation)
        self._gateway = number % len(part.gateway_ports)
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._request: _Request

    def next_call(self, key: str, user_id: str, team_id: str | None) -> Call:
        stream = self.chance.random() < _STREAMS
        written = self.chance.randint(1, 8)
        content = "word " * self.chance.randint(1, 60)
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": written}
        if stream:
            body["stream"] = True
        payload = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "host: gateway",
            f"authorization: Bearer {user_id}/{team_id or ''}",
            "content-type: application/json",
            f"content-length: {len(payload)}",
            f"idempotency-key: {key}",
        ]
        if stream:
            lines.append('x-simulate: {"chunk_delay_seconds": 0.03}')
        leaves = self.chance.randint(1, written) if stream and self.chance.random() < _LEAVES else None
        self._request = _Request("\r\n".join([*lines, "", ""]).encode() + payload, stream, leaves)
        return Call(self.name, key, user_id, team_id, cost_of(input_tokens_of(body), written))

    async def attempt(self, call: Call) -> Attempt:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await self._exchange(self._request)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            self._hang_up()
            self._gateway = (self._gateway + 1) % len(self.part.gateway_ports)
            return "failed"

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None

    async def _exchange(self, request: _Request) -> Attempt:
        if self._connection is None:
            port = self.part.gateway_ports[self._gateway]
            self._connection = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._connection
        writer.write(request.text)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        headers = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:])
        if headers.get("transfer-encoding") == "chunked":
            chunks = 0
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
                chunks += 1
                if status == 200 and chunks == request.leaves_after:
                    self._hang_up()
                    return "left"
            await reader.readexactly(2)
            body = b""
        else:
            body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self._hang_up()
        if status == 200:
            return "answered"
        if status == 409:
            return "settled" if json.loads(body)["error"]["code"] == "already_settled" else "in flight"
        self._gateway = (self._gateway + 1) % len(self.part.gateway_ports)
        self._hang_up()
        return "failed"


if __name__ == "__main__":
    _part = Part.of_command_line()
    asyncio.run(run_clients(_part, HttpClient))
