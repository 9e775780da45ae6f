"""Tokens for fences in Redis."""

from __future__ import annotations

import os
import secrets

__all__ = ["Tokens"]


class Tokens:
    """Texts that nobody has had before, in any process. Random bytes for each would cost more than the command."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._last = 0

    def new(self) -> str:
        self._last += 1
        # A process that was forked off would count on from the same start.
        return f"{self._start}.{os.getpid()}.{self._last}"
