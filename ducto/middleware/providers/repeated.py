"""Events of a stream that differ in nothing but text: known from the others without parsing their JSON.

A chat stream is hundreds of events that are the same bytes, except for the few letters that each delivers. Once one of
them has been read, `RepeatedEvent.learn` keeps the bytes around its text; another event that has the same bytes around
plain text is the same JSON with another text in that place, whatever the format. Anything else is read as ever.
"""

from __future__ import annotations

import re

__all__ = ["RepeatedEvent"]

#: What may be in a JSON string as it is, so that these bytes are its text.
_PLAIN = re.compile(rb'[^\x00-\x1f"\\]*')
#: Padding of random length, by which OpenAI hides how long the text is.
_PADDING = b'"obfuscation":"'
#: A longer event is neither learned nor known again: of very long ones the parser does not keep all.
_MAX_BYTES = 2_048


class RepeatedEvent:
    """One event, with a gap where its text was, and one where its padding was if it had any."""

    __slots__ = ("_first", "_last", "_middle", "_shown", "_text_first")

    def __init__(self, around: list[bytes], shown: list[bytes] | None, *, text_first: bool) -> None:
        self._first, self._last = around[0], around[-1]
        self._middle = around[1] if len(around) == 3 else None
        self._shown = shown
        self._text_first = text_first

    @classmethod
    def learn(cls, raw: bytes, text: str, *, shown: bytes) -> RepeatedEvent | None:
        """The shape of an event that delivered nothing but `text`, of which the client sees `shown`.

        `None` where it is not certain which bytes the text is: where anything is escaped, where it is there twice, and
        where it may be what is between two strings.
        """
        if not text or len(raw) > _MAX_BYTES or b"\\" in raw or ":" in text or "," in text:
            return None
        quoted = b'"%s"' % text.encode("utf-8", "surrogatepass")
        if raw.count(quoted) != 1 or shown.count(quoted) != 1 or raw.count(_PADDING) != shown.count(_PADDING) <= 1:
            return None
        around, text_first = _cut(raw, quoted)
        return cls(around, None if shown == raw else _cut(shown, quoted)[0], text_first=text_first)

    def read(self, raw: bytes) -> tuple[int, bytes] | None:
        """Bytes of text in `raw`, and what the client sees of it; `None` if it is another event."""
        first, last, middle, shown = self._first, self._last, self._middle, self._shown
        if not raw.startswith(first) or not raw.endswith(last) or len(raw) > _MAX_BYTES:
            return None
        start, end = len(first), len(raw) - len(last)
        if middle is None:
            if start > end or not _is_text(raw, start, end):
                return None
            return end - start, raw if shown is None else shown[0] + raw[start:end] + shown[1]
        # A gap ends with the first quote, for what is in it has none.
        until = raw.find(b'"', start)
        after = until + len(middle)
        if until < start or after > end or not raw.startswith(middle, until):
            return None
        if not _is_text(raw, start, until) or not _is_text(raw, after, end):
            return None
        size = until - start if self._text_first else end - after
        return size, raw if shown is None else shown[0] + raw[start:until] + shown[1] + raw[after:end] + shown[2]


def _is_text(raw: bytes, start: int, end: int) -> bool:
    found = _PLAIN.match(raw, start, end)
    if found is None or found.end() != end:
        return False
    text = found[0]
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(raw: bytes, quoted: bytes) -> tuple[list[bytes], bool]:
    """The bytes around the gaps, with the quotes, and whether the first gap is the text's."""
    place = raw.index(quoted)
    gaps = [(place + 1, place + len(quoted) - 1)]
    padding = raw.find(_PADDING)
    if padding >= 0:
        start = padding + len(_PADDING)
        gaps.append((start, raw.index(b'"', start)))
    text_first = gaps[0] <= gaps[-1]
    edges = [0, *(edge for gap in sorted(gaps) for edge in gap), len(raw)]
    return [raw[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)], text_first
