"""AWS's binary event streams (`application/vnd.amazon.eventstream`), the form of Bedrock's streams.

A message is: its length and that of its headers (four bytes each, big-endian), the CRC-32 of these eight bytes, the
headers, the payload, and the CRC-32 of all before it. As with `SSEParser`, nothing is lost: the `raw` of all items
together is the input, however it was cut, and memory is bounded by the same limits.
"""

from __future__ import annotations

import struct
import zlib

from ducto.middleware.sse import HEAD_BYTES, MAX_EVENT_BYTES, TAIL_BYTES, SSEEvent

__all__ = ["DAMAGED", "EXCEPTION", "MEDIA_TYPE", "AWSEventStreamParser"]

MEDIA_TYPE = "application/vnd.amazon.eventstream"
#: `event` of an item that reports an error, and of one that cannot be read.
EXCEPTION = ":exception"
DAMAGED = ":damaged"

#: No service sends longer ones: a payload has at most 24 MB, headers 128 KB.
MAX_MESSAGE_BYTES = 24 * 1024 * 1024 + 128 * 1024 + 16
_PRELUDE = struct.Struct(">III")
_CHECKSUM_BYTES = 4
#: Bytes of a header's value by its type; of types 6 (bytes) and 7 (text) a length comes first.
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class AWSEventStreamParser:
    """Cuts one stream into items: `data` is the payload of a message, `event` its `:event-type`.

    After a message whose length cannot be true no other can be found: the rest is passed on unread, after one item
    whose `event` is `DAMAGED`. So is a message whose checksum is wrong, but those after it are read.
    """

    __slots__ = ("_damaged", "_left", "_pending", "_size", "_tail")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._damaged = False
        #: While a message is too large to be kept: its bytes that have not come, all of them, and the last that came.
        self._left = 0
        self._size = 0
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """The items that `chunk` completed, perhaps none."""
        items: list[SSEEvent] = []
        if self._left:
            chunk = self._feed_large(chunk, items)
        if self._damaged:
            return [*items, SSEEvent(chunk, size=len(chunk))] if chunk else items
        self._pending += chunk
        while len(self._pending) >= _PRELUDE.size and not self._left:
            total, headers, checksum = _PRELUDE.unpack_from(self._pending)
            least = _PRELUDE.size + headers + _CHECKSUM_BYTES
            if zlib.crc32(self._pending[:8]) != checksum or not least <= total <= MAX_MESSAGE_BYTES:
                self._damaged = True
                items.append(self._taken(len(self._pending), event=DAMAGED))
            elif len(self._pending) >= total:
                items.append(self._message(total, headers))
            elif total > MAX_EVENT_BYTES and len(self._pending) > HEAD_BYTES:
                self._begin_large(total, items)
            else:
                break
        return items

    def flush(self) -> SSEEvent | None:
        """The start of a message that never ended, `None` if there is none; it cannot be read."""
        if self._left:
            self._left = 0
            self._tail.clear()
            self._pending.clear()
            return None
        if not self._pending:
            return None
        item = self._taken(len(self._pending), event=DAMAGED)
        item.complete = False
        return item

    def _taken(self, size: int, *, event: str = "", data: bytes | None = None) -> SSEEvent:
        raw = bytes(self._pending[:size])
        del self._pending[:size]
        return SSEEvent(raw, raw[:HEAD_BYTES] if data is None else data, event, size)

    def _message(self, total: int, headers: int) -> SSEEvent:
        message = bytes(self._pending[:total])
        (checksum,) = struct.unpack_from(">I", message, total - _CHECKSUM_BYTES)
        if zlib.crc32(message[:-_CHECKSUM_BYTES]) != checksum:
            return self._taken(total, event=DAMAGED)
        start = _PRELUDE.size + headers
        payload = message[start:-_CHECKSUM_BYTES]
        item = self._taken(total, event=_event_of(message[_PRELUDE.size : start]), data=payload)
        if total > MAX_EVENT_BYTES:
            item.data, item.truncated, item.tail = payload[:HEAD_BYTES], True, payload[-TAIL_BYTES:]
        return item

    def _begin_large(self, total: int, items: list[SSEEvent]) -> None:
        raw = bytes(self._pending)
        self._left, self._size = total - len(raw), total
        self._tail = bytearray(raw[-TAIL_BYTES:])
        del self._pending[HEAD_BYTES:]
        items.append(SSEEvent(raw, size=len(raw)))

    def _feed_large(self, chunk: bytes, items: list[SSEEvent]) -> bytes:
        """Take the bytes of the large message; the rest of `chunk`, after its end, is returned."""
        part, rest = chunk[: self._left], chunk[self._left :]
        self._left -= len(part)
        self._tail = (self._tail + part)[-TAIL_BYTES:]
        if self._left:
            items.append(SSEEvent(part, size=self._size - self._left))
            return b""
        head = bytes(self._pending)
        self._pending.clear()
        _, headers, _ = _PRELUDE.unpack_from(head)
        start = _PRELUDE.size + headers
        tail = bytes(self._tail[:-_CHECKSUM_BYTES])
        items.append(SSEEvent(part, head[start:], _event_of(head[_PRELUDE.size : start]), self._size, True, tail))
        return rest


def _event_of(headers: bytes) -> str:
    """The `:event-type` in the headers of a message, `EXCEPTION` if it reports an error."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(headers):
        name_end = at + 1 + headers[at]
        name, kind = headers[at + 1 : name_end], headers[name_end : name_end + 1]
        at = name_end + 1
        if kind in (b"\x06", b"\x07"):
            size = int.from_bytes(headers[at : at + 2], "big")
            found[name] = headers[at + 2 : at + 2 + size]
            at += 2 + size
        elif not kind or kind[0] not in _VALUE_BYTES:
            return DAMAGED
        else:
            at += _VALUE_BYTES[kind[0]]
    if found.get(b":message-type", b"event") != b"event":
        return EXCEPTION
    return found.get(b":event-type", b"").decode("utf-8", "replace")
