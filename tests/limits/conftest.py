from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.middleware.support import BODIES, CHAT

ROOT = Path(__file__).parents[2]
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-alice\r\n".encode()


@dataclass(frozen=True)
class Gateway:
    """A gateway in another process, spoken to over plain sockets."""

    port: int
    pid: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, request: bytes) -> bytes:
        """Send these bytes, and take what comes until the server closes."""
        reader, writer = await self.connect()
        try:
            with contextlib.suppress(OSError):
                writer.write(request)
                await writer.drain()
            with contextlib.suppress(OSError):
                return await asyncio.wait_for(reader.read(), 20)
            return b""
        finally:
            writer.close()

    async def call(self) -> int:
        """The status of an ordinary call."""
        raw = json.dumps(BODIES[CHAT]).encode()
        length = f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode()
        return status_of(await self.exchange(HEAD + length + raw))

    async def standing(self) -> Any:
        """What alice has."""
        answer = await self.exchange(
            b"GET /v1/credits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-alice\r\nConnection: close\r\n\r\n"
        )
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def peak_memory_mb(self) -> float:
        """The most memory that it has had in use, ever."""
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


def status_of(answer: bytes) -> int:
    """0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@contextlib.contextmanager
def running_gateway(http: str) -> Iterator[Gateway]:
    command = [sys.executable, "-m", "tests.limits.serving", http]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Gateway(int(process.stdout.readline()), process.pid)
            process.stdin.close()
            assert process.wait(20) == 0, "the books were not sound at the end"
        finally:
            process.kill()


@pytest.fixture(scope="module", params=["h11", "httptools"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """With each of the two parsers that uvicorn has."""
    with running_gateway(request.param) as running:
        yield running
