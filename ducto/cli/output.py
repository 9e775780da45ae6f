"""What commands print: tables for people, one JSON document for programs, notes and progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ducto.errors import CreditError, DuctoError

__all__ = ["Output", "as_json", "shown"]

#: Where nobody looks, lines are not broken: what reads them may be a program after all.
_WIDTH_OF_A_PIPE = 240


class Output:
    """Where one command prints. With `as_json` the only thing on stdout is the document of `show`."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDTH_OF_A_PIPE
        self._console = Console(width=width, highlight=False, markup=False, emoji=False)
        self._stderr = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def show(self, document: object, *renderables: object) -> None:
        """`document` as JSON, or `renderables` (tables, texts) one below the other. Once a command."""
        if self.as_json:
            self._console.file.write(json.dumps(as_json(document), ensure_ascii=False, indent=2) + "\n")
        else:
            for renderable in renderables:
                self._console.print(_cell(renderable) if isinstance(renderable, str) else renderable)

    def record(self, document: BaseModel | Mapping[str, Any], *, title: str | None = None) -> None:
        """One thing: its fields below each other, without those that say nothing."""
        self.show(document, fields_table(_fields(document), title=title))

    def rows(
        self,
        rows: Iterable[BaseModel | Mapping[str, Any]],
        columns: Sequence[str],
        *,
        title: str | None = None,
        empty: str,
    ) -> None:
        """Several things of one kind: `columns` of each as a table, or the sentence `empty`; in JSON all fields."""
        listed = list(rows)
        self.show(listed, rows_table(listed, columns, title=title) if listed else empty)

    def message(self, text: str) -> None:
        """A sentence for people; a program has the document of `show`."""
        if not self.as_json:
            self._console.print(_cell(text))

    def note(self, text: str) -> None:
        """A remark beside the result, on stderr."""
        self._stderr.print(_cell(text))

    def error(self, error: DuctoError) -> None:
        """Why the command ends here, on stderr: a sentence, or with `as_json` a JSON object in one line."""
        if self.as_json:
            details = error.details if isinstance(error, CreditError) else {}
            document = {"error": error.code, "message": str(error), "details": details}
            self._stderr.file.write(json.dumps(as_json(document), ensure_ascii=False) + "\n")
        else:
            self.note(f"ducto: {error}")

    @contextmanager
    def progress(self, title: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Shows on stderr how far long work has come, where a person looks on; call the given function with each
        advance.
        """
        if self.as_json or not self._stderr.is_terminal:
            yield lambda done: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._stderr, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, advance=done)


def rows_table(
    rows: Sequence[BaseModel | Mapping[str, Any]], columns: Sequence[str], *, title: str | None = None
) -> Table:
    """A table of `columns` of `rows`; numbers to the right."""
    table = Table(title=None if title is None else _cell(title), title_justify="left")
    fields = [_fields(row) for row in rows]
    for name in columns:
        numeric = any(_is_number(each.get(name)) for each in fields)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for each in fields:
        table.add_row(*(_cell(shown(each.get(name))) for name in columns))
    return table


def fields_table(fields: Mapping[str, Any], *, title: str | None = None) -> Table:
    """Names and values below each other, without those that are empty."""
    table = Table(title=None if title is None else _cell(title), title_justify="left", box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        # 0 is a number that says something.
        if type(value) is int or value not in (None, False, (), [], {}):
            table.add_row(_cell(name.replace("_", " ")), _cell(shown(value)))
    return table


def shown(value: object) -> str:
    """A value as people read it."""
    if value is None or value is False:
        return "-"
    if value is True:
        return "yes"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items() if each is not None) or "-"
    if isinstance(value, (tuple, list)):
        return ", ".join(shown(each) for each in value) or "-"
    if isinstance(value, BaseModel):
        return shown(dict(value))
    return str(value)


def as_json(value: object) -> Any:
    """`value` as plain JSON. A decimal becomes text, so that no reader rounds it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _fields(value: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(value) if isinstance(value, BaseModel) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _cell(text: str) -> Text:
    """Text that cannot steer the terminal, whatever an id or a description contains."""
    return Text("".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in text))
