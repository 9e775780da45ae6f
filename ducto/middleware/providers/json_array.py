"""The elements of a JSON array that arrives in pieces: the form of Gemini's streams that are not server-sent events.

As with `SSEParser`, nothing is lost: the `raw` of all items together is the input, however it was cut. It is no
validator: what stands between the objects is passed over, and each object is left to the reader to parse. Memory is
bounded by the same limits.
"""

from __future__ import annotations

import re

from ducto.middleware.sse import HEAD_BYTES, TAIL_BYTES, SSEEvent

__all__ = ["JSONArrayParser"]

#: The bytes that change what the ones after them mean. None is part of a longer UTF-8 sequence.
_MARKS = re.compile(rb'["\\\[\]{}]')


class JSONArrayParser:
    """Cuts one array into an item for each object in it; what is between them comes as items without `data`."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_large_bytes", "_pending", "_tail")

    def __init__(self) -> None:
        #: The object that has begun, as far as it is kept.
        self._pending = bytearray()
        self._depth = 0
        self._in_string = False
        #: The next byte belongs to a backslash before it.
        self._escaped = False
        #: While an object is too large to be kept: its bytes so far, and the last of them.
        self._large_bytes = 0
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """The items that `chunk` completed, and what is no part of an object."""
        items: list[SSEEvent] = []
        start = 0
        skipped = 0 if self._escaped else -1
        self._escaped = False
        for match in _MARKS.finditer(chunk):
            at = match.start()
            if at == skipped:
                continue
            mark = chunk[at]
            if self._in_string:
                if mark == 0x22:
                    self._in_string = False
                elif mark == 0x5C:
                    skipped = at + 1
            elif not self._depth:
                if mark == 0x7B:
                    if at > start:
                        items.append(SSEEvent(chunk[start:at], size=at - start))
                    start, self._depth = at, 1
            elif mark == 0x22:
                self._in_string = True
            elif mark in (0x7B, 0x5B):
                self._depth += 1
            elif mark in (0x7D, 0x5D):
                self._depth -= 1
                if not self._depth:
                    items.append(self._ended(chunk[start : at + 1]))
                    start = at + 1
        self._escaped = skipped == len(chunk)
        self._keep(chunk[start:], items)
        return items

    def flush(self) -> SSEEvent | None:
        """The start of an object that never ended; `None` if there is none."""
        if not self._depth:
            return None
        item = self._ended(b"")
        self._depth, self._in_string, self._escaped = 0, False, False
        item.complete = False
        return item

    def _keep(self, rest: bytes, items: list[SSEEvent]) -> None:
        if not rest:
            return
        if not self._depth:
            items.append(SSEEvent(rest, size=len(rest)))
        elif self._large_bytes:
            self._large_bytes += len(rest)
            self._tail = (self._tail + rest)[-TAIL_BYTES:]
            items.append(SSEEvent(rest, size=self._large_bytes))
        else:
            self._pending += rest
            if len(self._pending) > HEAD_BYTES:
                raw = bytes(self._pending)
                self._large_bytes, self._tail = len(raw), bytearray(raw[-TAIL_BYTES:])
                del self._pending[HEAD_BYTES:]
                items.append(SSEEvent(raw, size=len(raw)))

    def _ended(self, last: bytes) -> SSEEvent:
        head = bytes(self._pending)
        self._pending.clear()
        if not self._large_bytes:
            raw = head + last
            if len(raw) <= HEAD_BYTES + TAIL_BYTES:
                return SSEEvent(raw, raw, size=len(raw))
            return SSEEvent(raw, raw[:HEAD_BYTES], "", len(raw), True, raw[-TAIL_BYTES:])
        size = self._large_bytes + len(last)
        tail = bytes((self._tail + last)[-TAIL_BYTES:])
        self._large_bytes = 0
        self._tail = bytearray()
        if size > HEAD_BYTES + TAIL_BYTES:
            return SSEEvent(last, head, "", size, True, tail)
        return SSEEvent(last, head + tail[len(tail) - (size - len(head)) :], size=size)
