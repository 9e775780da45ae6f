"""Exports of the ledger: every row once, flat, of stable types, safe in a spreadsheet, and resumable anywhere."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ducto.errors import ArgumentError
from ducto.export import COLUMNS, ExportFormat, ExportPart, export_transactions
from ducto.models import SpendCap, Transaction, TransactionPage
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from ducto.usage import ToolCall, UsageMetrics

START = datetime(2026, 5, 1, tzinfo=UTC)


class Books:
    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = MemoryStore(clock=self.clock)

    async def fill(self) -> None:
        """Nine rows, an hour apart, of two users and a team; a transfer has two."""
        store = self.store
        await store.add_credits("ann", 1000, "purchase", {"note": "=1+1", "b": [1, {"c": None}]}, idempotency_key="p1")
        self.clock.advance(3600)
        usage = UsageMetrics(input_tokens=812, output_tokens=304, tool_calls=(ToolCall(name="x"), ToolCall(name="y")))
        charged = await store.charge_credits("ann", 70, "chat", model="gpt", usage=usage)
        self.clock.advance(3600)
        await store.transfer_credits("ann", "bob", 100)
        self.clock.advance(3600)
        await store.refund_credits(charged.transaction_id or "", 20)
        self.clock.advance(3600)
        team = await store.create_team("red", 500)
        self.team_id = team.team_id or ""
        await store.add_team_member(self.team_id, "ann")
        self.clock.advance(3600)
        await store.deduct_team(self.team_id, "ann", 5)
        self.clock.advance(3600)
        await store.adjust_credits("bob", 30, direction="debit")
        self.clock.advance(3600)
        await store.charge_credits("ann", 1, "@SUM(A1)", model="-model")


@pytest.fixture
async def books() -> Books:
    made = Books()
    await made.fill()
    return made


async def whole(parts: AsyncIterator[ExportPart]) -> bytes:
    return b"".join([part.data async for part in parts])


async def exported(store: CreditStore, **chosen: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await whole(export_transactions(store, **chosen))).splitlines()]


def expected_types() -> dict[str, type]:
    """What a column holds, besides null."""
    types: dict[str, type] = {}
    for name, field in Transaction.model_fields.items():
        kinds = {kind for kind in (int, bool) if str(kind.__name__) in str(field.annotation).split(" | ")[0]}
        types[name] = kinds.pop() if kinds else str
    counts = {f"usage_{name}": int for name, field in UsageMetrics.model_fields.items() if field.annotation is int}
    return types | counts | {"usage_tool_calls": int, "metadata": str}


async def test_the_whole_book_has_every_row_once_oldest_first(books: Books) -> None:
    rows = await exported(books.store, page_size=2)
    assert [(row["type"], row["user_id"], row["amount"]) for row in rows] == [
        ("purchase", "ann", 1000),
        ("charge", "ann", -70),
        ("transfer_out", "ann", -100),
        ("transfer_in", "bob", 100),
        ("refund", "ann", 20),
        ("grant", None, 500),
        ("charge", "ann", -5),
        ("adjustment", "bob", -30),
        ("charge", "ann", -1),
    ]
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)


async def test_rows_are_flat_with_the_same_columns_and_types(books: Books) -> None:
    types = expected_types()
    rows = await exported(books.store)
    for row in rows:
        assert tuple(row) == COLUMNS
        for name, value in row.items():
            assert value is None or type(value) is types.get(name, str), (name, value)
    charge = rows[1]
    assert charge["created_at"] == "2026-05-01T01:00:00.000000+00:00"
    assert (charge["usage_input_tokens"], charge["usage_tool_calls"], charge["usage_speed"]) == (812, 2, None)
    assert json.loads(rows[0]["metadata"]) == {"note": "=1+1", "b": [1, {"c": None}]}
    assert (rows[0]["usage_input_tokens"], charge["metadata"]) == (None, None)


async def test_what_is_nested_is_json_text(books: Books) -> None:
    store = books.store
    await store.add_credits("eve", 50, "grant", expires_at=books.clock() + timedelta(days=1))
    await store.set_spend_cap(SpendCap(user_id="eve", cap_type="daily", limit=10, action="warn"))
    await store.charge_credits("eve", 30)
    added, charged = (await exported(store))[-2:]
    assert (added["cap_warning"], added["cap_notices"]) == (None, None)
    (delta,) = json.loads(charged["grant_deltas"])
    assert (delta["grant"], delta["amount"], delta["expires_at"][:10]) == (1, -30, "2026-05-02")
    assert json.loads(charged["cap_warning"])["cap"]["limit"] == 10


async def test_json_is_one_array_of_the_lines_of_jsonl(books: Books) -> None:
    for chosen in ({"page_size": 2}, {"page_size": 1000}, {"user_id": "nobody"}):
        array = json.loads(await whole(export_transactions(books.store, format="json", **chosen)))
        assert array == await exported(books.store, **chosen)


async def test_csv_has_a_header_and_reads_back_as_the_lines_of_jsonl(books: Books) -> None:
    data = await whole(export_transactions(books.store, format="csv", page_size=2))
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    assert tuple(header) == COLUMNS
    lines = await exported(books.store)
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        for name, cell in zip(header, row, strict=True):
            value = line[name]
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert cell in (text, f"'{text}")
            assert (cell != text) == (isinstance(value, str) and value[0] in "=+-@")
    assert data.decode().count("\r\n") == len(rows) + 1


@pytest.mark.parametrize("bad", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "＝1", "-"])
async def test_no_spreadsheet_takes_text_for_a_formula(bad: str) -> None:
    store = MemoryStore()
    await store.charge_credits(bad, 7, bad, {"=": bad}, force=True, model=bad, pricing_version=bad, idempotency_key=bad)
    data = (await whole(export_transactions(store, format="csv"))).decode()
    _, row = csv.reader(io.StringIO(data, newline=""))
    cells = dict(zip(COLUMNS, row, strict=True))
    for name in ("user_id", "operation_type", "model", "pricing_version", "idempotency_key"):
        assert cells[name] == "'" + bad
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r", "＝")) for cell in row)
    assert (cells["amount"], cells["balance_after"]) == ("-7", "-7"), "numbers stay numbers"
    # Text is quoted also where no comma asks for it: some spreadsheets split at semicolons or tabs.
    assert f'"\'{bad}"' in data


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize("filters", [{}, {"user_id": "ann"}])
async def test_an_export_may_be_broken_off_and_resumed_at_every_part(
    books: Books, format: ExportFormat, filters: dict[str, Any]
) -> None:
    at_once = await whole(export_transactions(books.store, format=format, page_size=2, **filters))
    stops = 0
    while True:
        data, cursor, parts = b"", None, 0
        async for part in export_transactions(books.store, format=format, page_size=2, **filters):
            data, cursor, parts = data + part.data, part.next_cursor, parts + 1
            if parts > stops and cursor is not None:
                break
        else:
            break
        resumed = export_transactions(books.store, format=format, page_size=1000, cursor=cursor, **filters)
        assert data + await whole(resumed) == at_once
        stops += 1
    assert stops >= 2


async def test_the_last_cursor_of_the_book_is_where_the_next_export_begins(books: Books) -> None:
    cursor = None
    async for part in export_transactions(books.store):
        cursor = part.next_cursor
    assert await exported(books.store, cursor=cursor) == []
    await books.store.add_credits("zoe", 3)
    assert [row["user_id"] for row in await exported(books.store, cursor=cursor)] == ["zoe"]


@pytest.mark.parametrize("page_size", [1, 2, 1000])
@pytest.mark.parametrize("hours", [(None, None), (1, None), (None, 3), (1, 3), (2, 2), (6, 90), (90, 99), (0, 1)])
async def test_windows_are_half_open_for_the_book_and_for_an_account(
    books: Books, hours: tuple[int | None, int | None], page_size: int
) -> None:
    start, end = (None if hour is None else START + timedelta(hours=hour) for hour in hours)

    def within(row: dict[str, Any]) -> bool:
        at = datetime.fromisoformat(row["created_at"])
        return (start is None or at >= start) and (end is None or at < end)

    for filters in ({}, {"user_id": "ann"}, {"team_id": books.team_id}, {"user_id": "ann", "team_id": books.team_id}):
        rows = await exported(books.store, **filters)
        assert rows
        found = await exported(books.store, **filters, start=start, end=end, page_size=page_size)
        assert found == [row for row in rows if within(row)], filters


async def test_bad_arguments_are_refused_at_once() -> None:
    store = MemoryStore()
    for bad in (
        {"format": "xml"},
        {"user_id": ""},
        {"team_id": ""},
        {"page_size": 0},
        {"page_size": 1001},
        {"start": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"start": START, "end": START - timedelta(seconds=1)},
        {"format": "json", "cursor": "1"},
    ):
        with pytest.raises(ArgumentError):
            export_transactions(store, **bad)
    with pytest.raises(ArgumentError):
        await whole(export_transactions(store, cursor="no cursor of ours"))


async def test_no_rows_are_an_empty_file_of_the_format() -> None:
    store = MemoryStore()
    files = [await whole(export_transactions(store, format=format)) for format in ("csv", "jsonl", "json")]
    assert files[0].startswith(b'"transaction_id","sequence",')
    assert (files[0].count(b"\n"), files[1], json.loads(files[2])) == (1, b"", [])


class EndlessStore(MemoryStore):
    """A book of very many rows."""

    async def list_ledger(
        self,
        after: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 100,
    ) -> TransactionPage:
        first = int(after or 0)
        at = START + timedelta(seconds=first)
        rows = tuple(
            Transaction(
                transaction_id=f"txn_{number}",
                sequence=number,
                type="charge",
                amount=-1,
                balance_after=0,
                booked_at=at,
                created_at=at,
                metadata={"text": "x" * 500},
            )
            for number in range(first + 1, min(first + limit, 20_000) + 1)
        )
        return TransactionPage(transactions=rows, next_cursor=str(first + len(rows)) if rows else None)


async def test_memory_does_not_grow_with_the_rows() -> None:
    tracemalloc.start()
    try:
        size = rows = 0
        async for part in export_transactions(EndlessStore(), format="csv", page_size=100):
            size, rows = size + len(part.data), rows + part.rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 20_000
    assert peak < size / 5
