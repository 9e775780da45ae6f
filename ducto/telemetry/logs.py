"""Log lines as JSON, one object a line, without credentials."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter", "masked"]

MASK = "***"

#: What other libraries may log: credentials in an address, in a header, in a query, and keys by their usual look.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s'\"]*@"), f"{MASK}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {MASK}"),
    (
        re.compile(
            r"\b((?:x-)?api[_-]?key|apikey|access[_-]?token|password|passwd|secret)\b(['\"]?\s*[=:,]\s*b?['\"]?)"
            r"[^\s&'\",;)]+",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"([?&](?:key|token|sig|signature)=)[^&\s'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\bsk-[\w-]{8,}"), MASK),
)

#: What every record has; the rest came by `extra`.
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def masked(text: str) -> str:
    """`text` without the credentials that can be told by their form."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `logger`, `message`; with an exception
    `exception`; within a span of OpenTelemetry `trace_id` and `span_id`; and what was given by `extra`.

    ducto itself logs neither prompts nor keys nor addresses of databases. That of other libraries' lines which looks
    like a credential is masked; at DEBUG some of them log whole requests, so leave them at INFO.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_current_span(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        for name, value in record.__dict__.items():
            if name not in _STANDARD and name not in entry:
                entry[name] = value
        return json.dumps(_masked_within(entry), ensure_ascii=False, default=lambda value: masked(str(value)))


def _masked_within(value: Any) -> Any:
    """`value` with every text in it masked; what JSON has no form for is left to be told as text."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {str(name): _masked_within(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_masked_within(one) for one in value]
    return value


def _current_span() -> dict[str, str]:
    """The ids by which a line is found from its trace. Nothing is loaded for it: who traces has loaded it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    span_context = trace.get_current_span().get_span_context()
    if not span_context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(span_context.trace_id),
        "span_id": trace.format_span_id(span_context.span_id),
    }
