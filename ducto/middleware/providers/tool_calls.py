"""The tools that an answer called, by name: those that the caller runs, and those that the provider ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ducto.middleware.providers.numbers import text_at
from ducto.usage import ToolCall, UsageMetrics

__all__ = ["MAX_TOOL_CALLS", "ToolCalls"]

#: Calls of one answer that are listed; no answer that is not an attack has more.
MAX_TOOL_CALLS = 1_000


class ToolCalls:
    """Names of called tools, in order and bounded in number; what is no proper name is passed over."""

    __slots__ = ("_names", "_seen")

    def __init__(self) -> None:
        self._names: list[str] = []
        self._seen: set[object] = set()

    def add(self, source: Mapping[str, Any], name: str = "name") -> None:
        """Note the tool whose name is the text `name` of `source`."""
        self.add_named(text_at(source, name))

    def add_named(self, name: str | None, *, times: int = 1) -> None:
        if name:
            self._names += [name] * min(times, MAX_TOOL_CALLS - len(self._names))

    def add_once(self, key: object, source: Mapping[str, Any]) -> None:
        """Like `add`, for a call that comes in several pieces: `key`, which is hashable, says which it is."""
        if key not in self._seen and len(self._seen) < MAX_TOOL_CALLS and text_at(source, "name") is not None:
            self._seen.add(key)
            self.add(source)

    def copy(self) -> ToolCalls:
        """The same calls, to which more may be added."""
        made = ToolCalls()
        made._names = list(self._names)
        return made

    def within(self, usage: UsageMetrics) -> UsageMetrics:
        """`usage` with these calls."""
        if not self._names:
            return usage
        return usage.model_copy(update={"tool_calls": tuple(ToolCall(name=name) for name in self._names)})
