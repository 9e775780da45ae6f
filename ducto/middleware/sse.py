"""Server-sent events out of bytes, as they arrive: bounded in memory, lossless, and never an exception.

The grammar is section 9.2 of the WHATWG HTML standard ("Server-sent events"): lines end in LF, CRLF or CR, a
blank line ends an event, several `data` lines are joined by LF, a line that starts with a colon is a comment,
and one byte order mark at the start of the stream is ignored.

What is added to the standard is *losslessness*: every item carries the `raw` bytes that it was made of, and
those of all items together, in order, are the input, byte for byte, however the input was cut. There are two
ways to use it:

* nothing is to be hidden: forward each chunk as it came, and `feed` a copy of it for what it says;
* one event may have to be hidden: forward the `raw` of each item that `feed` returns, except that of the
  hidden one, and that of `flush` at the end. A complete event is returned by the call that completed it, so
  nothing waits longer than its own last byte; the start of an unfinished event waits, up to
  `MAX_EVENT_BYTES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_EVENT_BYTES", "SSEEvent", "SSEParser"]

#: At most this much of one event is kept: its head and, when it is larger, its tail.
MAX_EVENT_BYTES = 64 * 1024
HEAD_BYTES = 48 * 1024
TAIL_BYTES = MAX_EVENT_BYTES - HEAD_BYTES

#: Two line ends in a row. CRLF is tried before its parts, and a CR that starts a CRLF is no line end by
#: itself.
_BLANK_LINE = re.compile(rb"\r\n(?:\r\n|\n|\r)|\n(?:\n|\r\n|\r)|\r(?!\n)(?:\r\n|\r)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class SSEEvent:
    """One piece of the stream: an event, or (with empty `data`) comments, blank lines or part of a large
    event.

    `data` is the event's payload without the field names; empty means that a client dispatches nothing for
    it. `event` is the event type, empty where none was given. `size` counts the bytes of the whole event.

    For an event larger than `MAX_EVENT_BYTES`, `truncated` is true, `data` is from its first 48 KB and `tail`
    is its last 16 KB as they were sent; its bytes come as the `raw` of several items, of which only the last
    has `data`. `complete` is false for what `flush` found without the blank line that ends an event.
    """

    raw: bytes
    data: bytes = b""
    event: str = ""
    size: int = 0
    truncated: bool = False
    tail: bytes = b""
    complete: bool = True


class SSEParser:
    """Cuts one stream into `SSEEvent` items. One instance per stream; not to be shared between streams."""

    __slots__ = ("_at_start", "_head", "_pending", "_searched", "_size", "_tail")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._at_start = True
        # While an event is too large to be kept: its first and last bytes, and how many there were so far.
        self._head = b""
        self._tail = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """The items that `chunk` completed, perhaps none."""
        if not self._pending and not self._size and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            # The usual chunk: whole events, of which mostly one.
            if chunk.find(b"\n\n") == len(chunk) - 2:
                return [self._whole(chunk)]
            return [self._whole(part + b"\n\n") for part in chunk[:-2].split(b"\n\n")]
        items: list[SSEEvent] = []
        if self._size:
            chunk = self._feed_large(chunk, items)
        self._pending += chunk
        start = self._cut_events(items)
        if start:
            del self._pending[:start]
            self._searched = 0
        if len(self._pending) > HEAD_BYTES:
            self._begin_large(items)
        else:
            # A blank line has at most four bytes, so the next search starts three before the end.
            self._searched = max(0, len(self._pending) - 3)
        return items

    def whole_events(self, chunk: bytes) -> list[bytes] | None:
        """The bytes of each event in a chunk that is made of whole ones, none of which has been fed; else `None`.

        Only after the first event of the stream, and for lines that end in LF.
        """
        if self._pending or self._size or self._at_start or not chunk.endswith(b"\n\n") or b"\r" in chunk:
            return None
        if chunk.find(b"\n\n") == len(chunk) - 2:
            return [chunk]
        return [part + b"\n\n" for part in chunk[:-2].split(b"\n\n")]

    def flush(self) -> SSEEvent | None:
        """What is left at the end of the stream; `None` if nothing is.

        A browser drops an event whose blank line never came. Its payload is returned all the same (`complete`
        is false), because a provider's last event may carry the usage. The parser is empty afterwards.
        """
        if self._size:
            item = self._end_large(b"")
        elif self._pending:
            item = self._whole(bytes(self._pending))
            self._pending.clear()
        else:
            return None
        self._searched = 0
        item.complete = False
        return item

    def _cut_events(self, items: list[SSEEvent]) -> int:
        """Append the complete events of the pending bytes; the offset where the unfinished rest starts."""
        pending = self._pending
        start = 0
        position = self._searched
        only_lf = b"\r" not in pending
        while True:
            if only_lf:
                found = pending.find(b"\n\n", position)
                if found < 0:
                    return start
                end = found + 2
            else:
                match = _BLANK_LINE.search(pending, position)
                if match is None or _may_go_on(pending, match.end()):
                    return start
                end = match.end()
            items.append(self._whole(bytes(pending[start:end])))
            start = position = end

    def _whole(self, raw: bytes) -> SSEEvent:
        size = len(raw)
        if size > MAX_EVENT_BYTES:
            data, event = self._fields(raw[:HEAD_BYTES])
            return SSEEvent(raw, data, event, size, True, raw[-TAIL_BYTES:])
        data, event = self._fields(raw)
        return SSEEvent(raw, data, event, size)

    def _begin_large(self, items: list[SSEEvent]) -> None:
        """Let go of the bytes of an event that outgrew the head, and keep its end from now on."""
        raw = bytes(self._pending)
        self._head, self._tail, self._size = raw[:HEAD_BYTES], bytearray(raw[-TAIL_BYTES:]), len(raw)
        self._pending.clear()
        self._searched = 0
        items.append(SSEEvent(raw, size=len(raw)))

    def _feed_large(self, chunk: bytes, items: list[SSEEvent]) -> bytes:
        """Take the bytes of the large event; the rest of `chunk`, after its end, is returned."""
        before = bytes(self._tail[-3:])
        window = before + chunk
        match = _BLANK_LINE.search(window)
        if match is None or _may_go_on(window, match.end()):
            self._size += len(chunk)
            self._tail += chunk[-TAIL_BYTES:]
            del self._tail[:-TAIL_BYTES]
            items.append(SSEEvent(chunk, size=self._size))
            return b""
        end = match.end() - len(before)
        items.append(self._end_large(chunk[:end]))
        return chunk[end:]

    def _end_large(self, last: bytes) -> SSEEvent:
        self._tail += last[-TAIL_BYTES:]
        size = self._size + len(last)
        tail = bytes(self._tail[-TAIL_BYTES:])
        head = self._head
        self._head, self._size = b"", 0
        self._tail = bytearray()
        data, event = self._fields(head)
        if size > MAX_EVENT_BYTES:
            return SSEEvent(last, data, event, size, True, tail)
        # It outgrew the head but ended before the limit: head and tail overlap or meet, so nothing was lost.
        data, event = self._fields(head + tail[len(tail) - (size - len(head)) :])
        return SSEEvent(last, data, event, size)

    def _fields(self, raw: bytes) -> tuple[bytes, str]:
        """`(data, event type)` of the lines of one event."""
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
            return raw[6:-2], ""
        data: list[bytes] = []
        event = b""
        for line in raw.splitlines():
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                event = value.removeprefix(b" ")
        return b"\n".join(data), event.decode("utf-8", "replace")


def _may_go_on(buffer: bytes | bytearray, end: int) -> bool:
    """Whether the CR before `end` is probably half of a CRLF whose LF has not arrived.

    A stream whose lines end in CRLF is waited for, so that the LF stays with its event; one whose lines end
    in CR alone is not, because there each event would wait for the next.
    """
    return end == len(buffer) and buffer.endswith(b"\r\n\r")
