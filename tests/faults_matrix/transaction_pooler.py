"""A pooler in transaction mode, as PgBouncer and Supavisor are: each transaction may run on another session.

It speaks the protocol of Postgres (version 3) as far as that takes: a client is let in at once, its messages go to a
session until that is idle again (`ReadyForQuery`, status `I`), and the next ones go to the next session in turn. So
whatever depends on a session (prepared statements, `SET`, `LISTEN`, advisory locks) breaks at once and not only under
load. The server must trust loopback.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle

__all__ = ["TransactionPooler"]

_SSL_REQUEST, _CANCEL_REQUEST = 80877103, 80877102


class _Session:
    """A session with the server, and what the server said when it began."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.busy = asyncio.Lock()
        self.greeting = b""

    @classmethod
    async def open(cls, port: int, startup: bytes) -> _Session:
        session = cls(*await asyncio.open_connection("127.0.0.1", port))
        session.writer.write(startup)
        while True:
            kind, message = await _message(session.reader)
            session.greeting += message
            if kind == b"Z":
                return session
            if kind == b"E":
                raise ConnectionRefusedError(message)


class TransactionPooler:
    """Listens on `port` and passes transactions on to `sessions` sessions in turn."""

    def __init__(self, target_port: int, sessions: int) -> None:
        self._target_port = target_port
        self._size = sessions
        self._sessions: dict[bytes, list[_Session]] = {}
        self._turns: dict[bytes, cycle[_Session]] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        #: How many transactions went through.
        self.transactions = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, target_port: int, *, sessions: int = 4) -> AsyncIterator[TransactionPooler]:
        pooler = cls(target_port, sessions)
        server = await asyncio.start_server(pooler._serve, "127.0.0.1", 0)
        pooler.port = server.sockets[0].getsockname()[1]
        try:
            yield pooler
        finally:
            server.close()
            for task in pooler._tasks:
                task.cancel()
            await asyncio.gather(*pooler._tasks, return_exceptions=True)
            for session in (one for group in pooler._sessions.values() for one in group):
                session.writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                startup = await _startup(reader, writer)
                if startup is not None:
                    turns = await self._turns_for(startup)
                    writer.write(next(turns).greeting)
                    await self._converse(reader, writer, turns)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _turns_for(self, startup: bytes) -> cycle[_Session]:
        async with self._opening:
            if startup not in self._turns:
                group = [await _Session.open(self._target_port, startup) for _ in range(self._size)]
                self._sessions[startup], self._turns[startup] = group, cycle(group)
        return self._turns[startup]

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turns: cycle[_Session]
    ) -> None:
        incoming: asyncio.Future[tuple[bytes, bytes]] = asyncio.ensure_future(_message(reader))
        try:
            while True:
                await asyncio.wait({incoming})
                if incoming.result()[0] == b"X":
                    return
                session = next(turns)
                async with session.busy:
                    incoming = await self._transaction(reader, writer, session, incoming)
                self.transactions += 1
        finally:
            incoming.cancel()
            await asyncio.gather(incoming, return_exceptions=True)

    async def _transaction(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: _Session,
        incoming: asyncio.Future[tuple[bytes, bytes]],
    ) -> asyncio.Future[tuple[bytes, bytes]]:
        """Pass messages both ways until the session is idle. `incoming` is the client's next message, as is what this
        returns.
        """
        owed = 0
        answer = asyncio.ensure_future(_message(session.reader))
        try:
            while True:
                if incoming.done():
                    kind, message = incoming.result()
                    owed += kind in (b"Q", b"S")  # The server answers to these with `ReadyForQuery`.
                    session.writer.write(message)
                    incoming = asyncio.ensure_future(_message(reader))
                if answer.done():
                    kind, message = answer.result()
                    writer.write(message)
                    owed -= kind == b"Z"
                    if kind == b"Z" and owed == 0 and message[5:6] == b"I":
                        return incoming
                    answer = asyncio.ensure_future(_message(session.reader))
                await asyncio.wait({incoming, answer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """What a client begins with; `None` for the request to cancel a statement, which a pooler may ignore."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        message = head + await reader.readexactly(length - 8)
        if code == _CANCEL_REQUEST:
            return None
        if code != _SSL_REQUEST:
            return message
        writer.write(b"N")


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The type of the next message, and all of it."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)
