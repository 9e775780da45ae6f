"""The bytes of a segment: a header, records, and lines that strike records out. Pure: no file is touched here.

Every line is `KIND LENGTH CRC PAYLOAD\\n`: a character, the payload's length and the CRC-32 of kind and payload, both
as eight hexadecimal digits, and JSON in ASCII. `#` is the header, `+` a record (`{"n":12,"at":...,"entry":{...}}`), `-`
the numbers of records that are struck out (`[12,13]`).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FORMAT", "VERSION", "Contents", "Record", "header_line", "read_segment", "record_line", "strike_line"]

FORMAT = "ducto-settle-journal"
VERSION = 1

#: `+ 0000002a 1a2b3c4d `
_PREFIX_BYTES = 20
_KINDS = (b"#", b"+", b"-")


@dataclass(frozen=True, slots=True)
class Record:
    """What is owed: `entry` as it was appended, and when (milliseconds since 1970, by the clock of that process)."""

    number: int
    at_milliseconds: int
    entry: Any
    line_bytes: int


@dataclass(slots=True)
class Contents:
    """What a segment says. `records` are those that were not struck out, by number.

    `corrupt` are pieces that were changed after they had been written, as they are; `torn` is the beginning of a line
    at the end, whose process died while it wrote, so that nothing was promised for it.
    """

    header: dict[str, Any] | None = None
    records: dict[int, Record] = field(default_factory=dict)
    corrupt: list[bytes] = field(default_factory=list)
    torn: bytes = b""

    @property
    def foreign_version(self) -> int | None:
        """The version of the format, where it is another one than ours."""
        version = None if self.header is None else self.header.get("version")
        return version if isinstance(version, int) and version != VERSION else None

    @property
    def books(self) -> str | None:
        """The name of the books that the segment was written for, if the header can be read."""
        books = None if self.header is None else self.header.get("books")
        return books if isinstance(books, str) else None


def header_line(*, books: str, pid: int, at_milliseconds: int) -> bytes:
    header = {"format": FORMAT, "version": VERSION, "books": books, "pid": pid, "at": at_milliseconds}
    return _line(b"#", json.dumps(header, separators=(",", ":")).encode())


def record_line(number: int, at_milliseconds: int, entry: bytes) -> bytes:
    """`entry` is a JSON object in ASCII without line breaks."""
    return _line(b"+", b'{"n":%d,"at":%d,"entry":%b}' % (number, at_milliseconds, entry))


def strike_line(numbers: list[int]) -> bytes:
    return _line(b"-", json.dumps(numbers, separators=(",", ":")).encode())


def _line(kind: bytes, payload: bytes) -> bytes:
    return b"%b %08x %08x %b\n" % (kind, len(payload), _checksum(kind, payload), payload)


def _checksum(kind: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(kind))


def read_segment(data: bytes) -> Contents:
    """All that can be read of `data`, whatever was done to it: a damaged line costs that line alone."""
    contents = Contents()
    struck: set[int] = set()
    position, damaged_from = 0, -1
    while position < len(data):
        found = _line_at(data, position)
        if found is not None and _take(found[0], found[1], contents, struck):
            if damaged_from >= 0:
                contents.corrupt.append(data[damaged_from:position])
                damaged_from = -1
            # The checksum says where the line ends, also where the line break after it was damaged.
            position += _PREFIX_BYTES + len(found[1]) + 1
            continue
        line_break = data.find(b"\n", position)
        if line_break < 0 and damaged_from < 0:
            contents.torn = data[position:]
            return contents
        damaged_from = position if damaged_from < 0 else damaged_from
        position = len(data) if line_break < 0 else line_break + 1
    if damaged_from >= 0:
        contents.corrupt.append(data[damaged_from:])
    for number in struck:
        contents.records.pop(number, None)
    return contents


def _line_at(data: bytes, position: int) -> tuple[bytes, bytes] | None:
    """Kind and payload of the line that begins there, if its checksum is right."""
    prefix = data[position : position + _PREFIX_BYTES]
    kind = prefix[:1]
    if kind not in _KINDS:
        return None
    try:
        length, checksum = int(prefix[2:10], 16), int(prefix[11:19], 16)
    except ValueError:
        return None
    begin = position + _PREFIX_BYTES
    payload = data[begin : begin + length]
    # The prefix as it is written, for `int` would also read capitals, blanks and signs.
    if b"%b %08x %08x " % (kind, length, checksum) != prefix or _checksum(kind, payload) != checksum:
        return None
    return kind, payload


def _take(kind: bytes, payload: bytes, contents: Contents, struck: set[int]) -> bool:
    """Note what a line says. False for one whose checksum is right and which says nothing that we know."""
    try:
        said = json.loads(payload)
        if kind == b"#":
            contents.header = dict(said)
        elif kind == b"-":
            struck.update(said)
        else:
            record = Record(said["n"], said["at"], said["entry"], _PREFIX_BYTES + len(payload) + 1)
            contents.records[record.number] = record
    except (ValueError, TypeError, KeyError):
        return False
    return True
