"""Charts, and what is shown where."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ducto.cli.charts import bar, sparkline
from ducto.cli.output import Output, as_json, shown
from ducto.cli.times import moment, next_midnight
from ducto.errors import CapReachedError
from ducto.pricing.catalogue import ModelNote


def test_sparkline_has_a_height_for_each_value() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1, 50, 100]) == "▁▂▅█"
    assert sparkline([-5, 7]) == "▁█"


def test_moments_are_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-01-31", option="--since") == datetime(2026, 1, 31, tzinfo=UTC)
        assert moment("2026-01-31T09:00+09:00", option="--since") == datetime(2026, 1, 31, tzinfo=UTC)
        now = datetime(2026, 1, 31, tzinfo=UTC)
        assert moment("2w", option="--since", now=now) == datetime(2026, 1, 17, tzinfo=UTC)
        assert next_midnight() > datetime.now(UTC)
        assert next_midnight().hour == 0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_bar_is_in_proportion_and_shows_the_least_amount() -> None:
    assert bar(100, largest=100, width=10) == "█" * 10
    assert bar(25, largest=100, width=10) == "██▌"
    assert bar(1, largest=2**53, width=10) == "▏"
    assert bar(0, largest=100) == bar(5, largest=0) == ""


def test_numbers_in_json_are_exact() -> None:
    document = as_json({"price": Decimal("0.10"), "credits": 2**53 - 1, "notes": (ModelNote("m", "why"),)})
    assert json.loads(json.dumps(document)) == {
        "price": "0.10",
        "credits": 2**53 - 1,
        "notes": [{"model": "m", "reason": "why"}],
    }


def test_values_as_people_read_them() -> None:
    assert [shown(value) for value in (1_234_567, Decimal("1234.50"), True, None, ("a", "b"), {})] == [
        "1,234,567",
        "1,234.50",
        "yes",
        "-",
        "a, b",
        "-",
    ]


@pytest.mark.parametrize("as_document", [True, False])
def test_stdout_has_the_result_alone(capsys: pytest.CaptureFixture[str], as_document: bool) -> None:
    out = Output(as_json=as_document)
    with out.progress("Working", total=2) as advance:
        advance(2)
    out.note("by the way")
    out.show({"a": 1}, "text")
    printed = capsys.readouterr()
    assert printed.err == "by the way\n", "no progress without a terminal"
    assert printed.out == ('{\n  "a": 1\n}\n' if as_document else "text\n")


def test_an_error_as_a_document_is_one_line_of_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).error(CapReachedError("too much", limit=5))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) == {"error": "cap_reached", "message": "too much", "details": {"limit": 5}}


def test_long_lines_are_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Output(as_json=False).rows([{"id": "x" * 200}], ("id",), empty="none")
    assert "x" * 200 in capsys.readouterr().out


def test_progress_is_for_terminals_and_not_for_documents(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # What rich takes for a terminal.
    monkeypatch.setenv("TERM", "xterm")
    for as_document in (True, False):
        with Output(as_json=as_document).progress("Replaying", total=2) as advance:
            advance(2)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert ("Replaying" in printed.err) is not as_document
