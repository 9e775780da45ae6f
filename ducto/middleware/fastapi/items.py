"""A provider's stream on its way through a path operation, read for its usage."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeVar, overload

from ducto.meter import MeteredCall
from ducto.middleware.found_usage import StreamUsage

__all__ = ["metered_items"]

logger: logging.Logger = logging.getLogger("ducto.middleware.fastapi")

T = TypeVar("T")


@overload
def metered_items(call: MeteredCall, items: AsyncIterable[T]) -> AsyncIterator[T]: ...
@overload
def metered_items(call: MeteredCall, items: Iterable[T]) -> Iterator[T]: ...
def metered_items(call: MeteredCall, items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T] | Iterator[T]:
    """The `items` of a provider's stream as they are, with what they say about usage recorded on `call`.

    Usage is found in the chunks and events of OpenAI, Anthropic and LiteLLM, as objects or dicts. A stream that ends
    early is charged for what is known of it, else by the missing-usage policy. What the path operation records itself
    counts instead.
    """
    if isinstance(items, AsyncIterable):
        return _async_items(call, items)
    return _items(call, items)


async def _async_items(call: MeteredCall, items: AsyncIterable[T]) -> AsyncIterator[T]:
    stream = StreamUsage(model=call.terms.admitted_model)
    try:
        async for item in items:
            _take(call, stream, item)
            yield item
    finally:
        _record(call, stream)


def _items(call: MeteredCall, items: Iterable[T]) -> Iterator[T]:
    stream = StreamUsage(model=call.terms.admitted_model)
    try:
        for item in items:
            _take(call, stream, item)
            yield item
    finally:
        _record(call, stream)


def _take(call: MeteredCall, stream: StreamUsage, item: object) -> None:
    call.note_delivery()
    try:
        stream.take(item)
    except Exception:
        logger.exception("The usage of an item could not be read.")


def _record(call: MeteredCall, stream: StreamUsage) -> None:
    found = stream.found()
    if found is not None and call.usage is None:
        call.record(found.usage, estimated=found.estimated)
