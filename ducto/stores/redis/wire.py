"""What a command looks like on its way to Redis."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["packed"]


def packed(parts: Sequence[str | bytes | int]) -> bytes:
    """A command as an array of bulk strings (Redis serialization protocol, version 2); text is sent as UTF-8."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)
