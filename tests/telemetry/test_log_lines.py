"""Log lines as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from ducto.telemetry import JsonFormatter
from tests.telemetry.support import Telemetry


def line_of(message: str, *args: object, exc_info: Any = None, **extra: object) -> dict[str, Any]:
    logger = logging.getLogger("ducto.test")
    record = logger.makeRecord("ducto.test", logging.WARNING, __file__, 1, message, args, exc_info, extra=extra)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


def test_a_line_has_time_level_logger_message_and_extras() -> None:
    line = line_of("Took %d ms in %s", 7, "Zürich", reservation="rsv", attempts=[1, 2], odd=object)
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "ducto.test", "Took 7 ms in Zürich")
    assert (line["reservation"], line["attempts"], line["odd"]) == ("rsv", [1, 2], "<class 'object'>")
    moment = datetime.fromisoformat(line["timestamp"])
    assert moment.tzinfo == UTC
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert "trace_id" not in line
    assert "exception" not in line


def test_an_exception_is_one_field_of_one_line() -> None:
    try:
        int("line\none")
    except ValueError:
        line = line_of("Failed", exc_info=sys.exc_info())
    assert line["exception"].startswith("Traceback")
    assert line["exception"].splitlines()[-1].startswith("ValueError: invalid literal")


def test_an_extra_does_not_replace_a_field_of_the_line() -> None:
    assert line_of("real", level="spoofed")["level"] == "WARNING"


def test_within_a_span_the_line_tells_its_ids(telemetry: Telemetry) -> None:
    with telemetry.tracer.start_as_current_span("request") as span:
        line = line_of("here")
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ducto:canary@db/books",
        "postgresql://ducto:p@canary:x@db:5432/books?sslmode=require",
        "rediss://:canary@cache:6379/0",
        "{'Authorization': 'Bearer canary'}",
        "authorization: Basic canary==",
        "{'x-api-key': 'canary'}",
        "(b'x-api-key', b'canary')",
        "GET https://api.example/v1?alt=sse&key=canary HTTP/1.1",
        "host=db password=canary dbname=books",
        "OPENAI_API_KEY: sk-canary-0123456789",
    ],
)
def test_credentials_are_masked_wherever_they_stand(text: str) -> None:
    line = line_of("said %s", text, given=text, nested=[{"of": text}])
    assert "canary" not in json.dumps(line)
    assert "***" in line["message"]


@pytest.mark.parametrize("text", ["http://127.0.0.1:8000/v1", "12:30 alice@example.com", "the key 'k' was used before"])
def test_what_is_no_credential_stays(text: str) -> None:
    assert line_of("%s", text)["message"] == text
