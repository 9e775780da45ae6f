"""What a simulated answer is to look like, and what is to go wrong with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Fault", "LineEnd", "UsageMode"]

#: Where the usage is told: `normal` as the provider does it; `missing` nowhere; `zero` all counts 0; for
#: streams of chat and completions `last_choice` on the last chunk with a choice, `cumulative` a running total
#: on every chunk.
UsageMode = Literal["normal", "missing", "zero", "last_choice", "cumulative"]

LineEnd = Literal["lf", "crlf", "cr"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "usage": ("normal", "missing", "zero", "last_choice", "cumulative"),
    "line_end": ("lf", "crlf", "cr"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted behaviour. The default is a correct answer of eight chunks, told at once."""

    #: The answer has this many chunks, each one token of output, fewer if the request's limit is lower.
    chunks: int = 8
    #: Text of the answer, dealt out over the chunks; by default numbered words.
    text: str | None = None
    #: Wait before the first byte of the answer, headers included.
    delay_seconds: float = 0.0
    #: Wait before each event of a stream but the first.
    chunk_delay_seconds: float = 0.0
    #: Answer with this HTTP status and an error body instead.
    status: int | None = None
    #: The error body; by default one in the provider's own form.
    error_body: Mapping[str, Any] | None = None
    #: Value of the header `retry-after` on an error, in seconds.
    retry_after_seconds: int | None = None
    #: Close the connection after this many bytes of the body.
    cut_after_bytes: int | None = None
    #: Send this many events of a stream, then nothing more until the client leaves; 0 is right after the
    #: headers.
    hang_after_events: int | None = None
    #: Send this many events of a stream, then an error event, and end.
    error_after_events: int | None = None
    usage: UsageMode = "normal"
    #: Laid over the usage object that is told; a value may be anything, also wrong.
    usage_fields: Mapping[str, Any] | None = None
    #: Body or stream of bytes that are neither JSON nor proper events.
    garbage: bool = False
    #: Leave out `data: [DONE]`, or for the other formats the terminal event.
    without_end: bool = False
    line_end: LineEnd = "lf"

    @classmethod
    def from_json(cls, text: str) -> Fault:
        """Read what the header `x-simulate` holds, as in `{"status": 429, "retry_after_seconds": 1}`.

        `ValueError` for what is no JSON object, and for names and values that no field has.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("x-simulate must hold a JSON object")  # noqa: TRY004 (one error for one header)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"x-simulate does not know {', '.join(unknown)}; it knows {', '.join(sorted(known))}")
        for name, allowed in _CHOICES.items():
            if values.get(name, allowed[0]) not in allowed:
                raise ValueError(f"x-simulate: {name} must be one of {', '.join(allowed)}")
        return cls(**values)
