"""The ledger as a file: CSV for spreadsheets, JSON for programs, page by page, so that memory does not grow with it.

Every row is one flat record with the fields of `COLUMNS`, always all of them, in this order, each of one type, so that
it loads into a table (Parquet, a warehouse) without a guess: whole numbers, true or false, text, instants as ISO 8601
text in UTC with microseconds, or null. What is nested is laid flat: `usage` as `usage_...`, the rest as JSON text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, assert_never

from ducto import arguments
from ducto.errors import ArgumentError
from ducto.models import Transaction, TransactionPage
from ducto.stores.base import CreditStore
from ducto.usage import COUNT_FIELDS, TEXT_FIELDS

__all__ = ["COLUMNS", "ExportFormat", "ExportPart", "export_transactions", "flat_row"]

#: `json` is one array of the same objects that `jsonl` has one of on each line.
ExportFormat = Literal["csv", "jsonl", "json"]
FORMATS: tuple[ExportFormat, ...] = ("csv", "jsonl", "json")

Cell = int | bool | str | None

#: Nested values that are written as JSON text, in the order of their columns.
_AS_JSON = ("metadata", "grant_deltas", "cap_warning", "cap_notices")
_PLAIN = tuple(name for name in Transaction.model_fields if name != "usage" and name not in _AS_JSON)
#: The fields of every record, in order. New ones are added at the end.
COLUMNS: tuple[str, ...] = (*_PLAIN, *(f"usage_{name}" for name in (*COUNT_FIELDS, *TEXT_FIELDS)), *_AS_JSON)

#: Spreadsheets take a cell that begins so for a formula (OWASP, "CSV Injection"); the last four are full-width forms.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPart:
    """What to append to the file, the rows in it, and the cursor to go on from once it is written.

    `next_cursor` is `None` at the end of an account, and in `json`, which cannot be resumed.
    """

    data: bytes
    rows: int
    next_cursor: str | None


def export_transactions(
    store: CreditStore,
    *,
    format: ExportFormat = "jsonl",
    user_id: str | None = None,
    team_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    cursor: str | None = None,
    page_size: int = 500,
) -> AsyncIterator[ExportPart]:
    """The rows created in the half-open window `[start, end)`, part by part; a bound that is `None` is open.

    With `user_id`, `team_id` or both: the rows that `list_transactions` shows, newest first. With neither: the whole
    book by `list_ledger`, each row once, in the order of commits, so that the last cursor of one export is where the
    next one goes on. A `cursor` continues after the part that had it: a CSV then has no header again, so that the
    parts can be joined. `page_size` (1..1000) rows are held at a time. Text that a spreadsheet would take for a
    formula gets a `'` before it in CSV; numbers stay numbers.

    Raises `ArgumentError` at once for bad arguments, and what the store raises while it is read.
    """
    arguments.check_choice(format, FORMATS, name="format")
    arguments.check_optional_id(user_id, name="user_id")
    arguments.check_optional_id(team_id, name="team_id")
    arguments.check_int(page_size, minimum=1, maximum=1000, name="page_size")
    first, last = arguments.check_open_window(start, end)
    if format == "json" and cursor is not None:
        raise ArgumentError("A json export is one array and cannot be resumed; use jsonl.")
    if user_id is None and team_id is None:
        pages = _pages_of_book(store, first, last, cursor, page_size)
    else:
        pages = _pages_of_account(store, user_id, team_id, first, last, cursor, page_size)
    return _written(pages, format, resumed=cursor is not None)


def flat_row(row: Transaction) -> dict[str, Cell]:
    """One record, with all `COLUMNS`."""
    usage = row.usage
    cells = [_cell(getattr(row, name)) for name in _PLAIN]
    if usage is None:
        cells += [None] * (len(COUNT_FIELDS) + len(TEXT_FIELDS))
    else:
        cells += [len(usage.tool_calls) if name == "tool_calls" else getattr(usage, name) for name in COUNT_FIELDS]
        cells += [getattr(usage, name) for name in TEXT_FIELDS]
    nested = row.model_dump(mode="json", include=set(_AS_JSON))
    cells += [None if nested[name] in (None, []) else json.dumps(nested[name], sort_keys=True) for name in _AS_JSON]
    return dict(zip(COLUMNS, cells, strict=True))


def _cell(value: int | str | datetime | None) -> Cell:
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value


async def _pages_of_book(
    store: CreditStore, start: datetime | None, end: datetime | None, cursor: str | None, page_size: int
) -> AsyncIterator[TransactionPage]:
    while True:
        page = await store.list_ledger(cursor, start=start, end=end, limit=page_size)
        if not page.transactions:
            return
        yield page
        cursor = page.next_cursor


async def _pages_of_account(
    store: CreditStore,
    user_id: str | None,
    team_id: str | None,
    start: datetime | None,
    end: datetime | None,
    cursor: str | None,
    page_size: int,
) -> AsyncIterator[TransactionPage]:
    while True:
        page = await store.list_transactions(user_id, team_id=team_id, cursor=cursor, limit=page_size)
        cursor = page.next_cursor
        # Newest first, and the time of an account never goes back: what comes after an old row is older.
        if start is not None and page.transactions and page.transactions[-1].created_at < start:
            cursor = None
        rows = tuple(
            row
            for row in page.transactions
            if (start is None or row.created_at >= start) and (end is None or row.created_at < end)
        )
        if rows:
            yield TransactionPage(transactions=rows, next_cursor=cursor)
        if cursor is None:
            return


async def _written(
    pages: AsyncIterator[TransactionPage], format: ExportFormat, *, resumed: bool
) -> AsyncIterator[ExportPart]:
    """The pages as bytes, with what the format wants before and after them."""
    opening, closing, write = _format(format)
    if opening and not resumed:
        yield ExportPart(data=opening, rows=0, next_cursor=None)
    is_first = True
    async for page in pages:
        rows = [flat_row(row) for row in page.transactions]
        data = write(rows, is_first)
        is_first = False
        yield ExportPart(data=data, rows=len(rows), next_cursor=None if format == "json" else page.next_cursor)
    if closing:
        yield ExportPart(data=closing, rows=0, next_cursor=None)


Writer = Callable[[list[dict[str, Cell]], bool], bytes]


def _format(format: ExportFormat) -> tuple[bytes, bytes, Writer]:
    """What comes first, what comes last, and how rows are written."""
    if format == "csv":
        return _csv([list(COLUMNS)]), b"", lambda rows, _: _csv([list(row.values()) for row in rows])
    if format == "jsonl":
        return b"", b"", lambda rows, _: b"".join(_json(row) + b"\n" for row in rows)
    if format == "json":
        return b"[", b"\n]\n", lambda rows, is_first: (b"\n" if is_first else b",\n") + b",\n".join(map(_json, rows))
    assert_never(format)


def _json(row: dict[str, Cell]) -> bytes:
    """One line of ASCII: other characters are escaped, so that no reader splits or decodes it wrongly."""
    return json.dumps(row, separators=(",", ":")).encode()


def _csv(rows: list[list[Cell]]) -> bytes:
    """As RFC 4180 has it, in UTF-8; all text is quoted, so that no separator of any spreadsheet splits it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _csv_cell(cell: Cell) -> int | str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS):
        return "'" + cell
    return cell
