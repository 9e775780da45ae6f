"""The transports and their streams, async and not: the way of a request through the door, to the provider and back.

They become classes of httpx or httpx2 in `Library.subclass`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

from ducto.middleware.body import too_large
from ducto.middleware.error_bodies import RefusedRequestError
from ducto.middleware.transport.answer import MeteredAnswer
from ducto.middleware.transport.door import TransportDoor
from ducto.middleware.transport.library import Library

__all__ = ["MeteredAsyncTransport", "MeteredTransport"]

_INSTEAD = (
    "use the async client there (AsyncOpenAI, AsyncAnthropic, httpx.AsyncClient) with "
    "metered_transport(..., mode='async'), or make the call in a thread (asyncio.to_thread)"
)


class _Body:
    """The body of a request, which may come from an iterator that can be read once: read no further than its limit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Raises `RefusedRequestError` (413) beyond the limit."""
        self._size += len(part)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._parts.append(part)

    @property
    def whole(self) -> bytes:
        return b"".join(self._parts)


class _Stream:
    """The body of an answer. One that is forgotten, neither read to its end nor closed, ends its books all the same."""

    def __init__(self, inner: Any, answer: MeteredAnswer, library: Library, door: TransportDoor) -> None:
        self._inner = inner
        self._answer = answer
        self._silence = library.timeout_error
        self._portal = door.manager.portal

    def __del__(self) -> None:
        self._answer.close_soon()

    def _failed(self, error: Exception) -> None:
        self._answer.broke_off(silent=isinstance(error, self._silence))


class MeteredAsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        answer = self._answer
        try:
            async for chunk in self._inner:
                shown = answer.feed(chunk)
                if answer.over:
                    answer.close()
                if shown:
                    yield shown
            if rest := answer.end():
                yield rest
        except Exception as error:
            self._failed(error)
            raise
        finally:
            await answer.closed()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            await self._answer.closed()


class MeteredStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        answer = self._answer
        try:
            for chunk in self._inner:
                shown = answer.feed(chunk)
                if answer.over:
                    answer.close_soon()
                if shown:
                    yield shown
            if rest := answer.end():
                yield rest
        except GeneratorExit:
            # Nobody reads on. At the end of the program, where what was forgotten is collected, there may be no loop
            # left to wait for; who closes the answer waits in `close`.
            answer.close_soon()
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                self._failed(error)
            self._portal.finish(answer.closed)
            raise
        self._portal.finish(answer.closed)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._portal.finish(self._answer.closed)


class _Transport:
    def __init__(self, door: TransportDoor, library: Library, inner: Any) -> None:
        self._door = door
        self._library = library
        self._inner = inner

    def _begun(self, admitted: Any) -> MeteredAnswer:
        return MeteredAnswer(admitted, manager=self._door.manager, options=self._door.options)


class MeteredAsyncTransport(_Transport):
    """For async clients on the manager's event loop."""

    def __init__(self, door: TransportDoor, library: Library, inner: Any) -> None:
        super().__init__(door, library, inner)
        self._stream_class = library.subclass(MeteredAsyncStream, "AsyncByteStream")

    async def handle_async_request(self, request: Any) -> Any:
        """One attempt. Refusals are answers; what the inner transport raises, and `ConfigError`, is raised."""
        door, library = self._door, self._library
        library.check(request)
        found = None
        try:
            found = door.find(request)
            if found is None:
                return await self._inner.handle_async_request(request)
            provider = door.check(request, found)
            payer = door.payer(request)
            body = await self._read(request)
            answer = self._begun(await door.admit(provider, payer, body))
        except RefusedRequestError as refused:
            return library.refused(refused, found)
        try:
            response = await self._inner.handle_async_request(library.passed_on(request, body, answer.admitted))
            headers = answer.begin(response.status_code, response.headers.raw)
        except BaseException:
            await answer.closed()
            raise
        if answer.successful:
            return library.answered(response, headers, self._stream_class(response.stream, answer, library, door))
        try:
            await answer.closed()
        except BaseException:
            # Cancelled while it waits: nobody else has the response, to give its connection back.
            await response.aclose()
            raise
        return library.answered(response, headers, response.stream)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    async def _read(self, request: Any) -> bytes:
        body = _Body(self._door.options.max_body_bytes)
        async for part in request.stream:
            body.add(part)
        return body.whole


class MeteredTransport(_Transport):
    """For clients that are not async, on any thread but one with an event loop."""

    def __init__(self, door: TransportDoor, library: Library, inner: Any) -> None:
        super().__init__(door, library, inner)
        self._stream_class = library.subclass(MeteredStream, "SyncByteStream")

    def handle_request(self, request: Any) -> Any:
        """As `MeteredAsyncTransport.handle_async_request`. `ConfigError` on a thread that runs an event loop."""
        door, library, portal = self._door, self._library, self._door.manager.portal
        library.check(request)
        found = None
        try:
            found = door.find(request)
            if found is None:
                return self._inner.handle_request(request)
            provider = door.check(request, found)
            payer = door.payer(request)
            body = self._read(request)
            answer = self._begun(portal.call(lambda: door.admit(provider, payer, body), instead=_INSTEAD))
        except RefusedRequestError as refused:
            return library.refused(refused, found)
        try:
            response = self._inner.handle_request(library.passed_on(request, body, answer.admitted))
            headers = answer.begin(response.status_code, response.headers.raw)
        except BaseException:
            portal.finish(answer.closed)
            raise
        if answer.successful:
            return library.answered(response, headers, self._stream_class(response.stream, answer, library, door))
        try:
            portal.finish(answer.closed)
        except BaseException:
            response.close()
            raise
        return library.answered(response, headers, response.stream)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)

    def _read(self, request: Any) -> bytes:
        body = _Body(self._door.options.max_body_bytes)
        for part in request.stream:
            body.add(part)
        return body.whole
