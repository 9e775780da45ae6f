"""Requests with files: `multipart/form-data` (RFC 7578), read so strictly that no other reader sees another model.

A file is not kept: what is read of it is its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ducto.errors import ArgumentError
from ducto.middleware.headers import header_values
from ducto.middleware.providers.base import Provider
from ducto.middleware.providers.jsontext import parse_request

__all__ = ["MAX_PARTS", "FormFile", "FormProvider", "file_sizes", "parse_form"]

MAX_PARTS = 100
MAX_PART_HEADER_BYTES = 4_096

_FORM = re.compile(
    r'multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))\s*(?:;[^"]*)?', re.I
)
_DISPOSITION = re.compile(r"\s*form-data\s*((?:;.*)?)", re.I | re.S)
_PARAMETER = re.compile(r';\s*([a-zA-Z]+\*?)\s*=\s*(?:"([^"\\]*)"|([^\s;"\\]+))\s*')
_PLAIN_ENCODINGS = frozenset({"7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file in a form."""

    size_bytes: int


class FormProvider(Provider):
    """A route whose requests are forms, or JSON where `accepts_json` says so."""

    accepts_json: ClassVar[bool] = True
    #: Fields that are numbers or flags, which a form holds as text.
    number_fields: ClassVar[frozenset[str]] = frozenset()
    flag_fields: ClassVar[frozenset[str]] = frozenset({"stream"})

    def __init__(self, *, content_type: str = "") -> None:
        self._content_type = content_type

    def bind(self, *, model: str | None, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        # Several headers are joined into one that is no proper form's, and `parse` refuses.
        return type(self)(content_type=b", ".join(header_values(headers, b"content-type")).decode("latin-1"))

    def parse(self, body: bytes) -> dict[str, Any]:
        given = self._content_type
        if given.strip().lower().startswith("multipart/"):
            return self._typed(parse_form(body, content_type=given))
        if not self.accepts_json:
            raise ArgumentError("The request must be a form with a file; send it as multipart/form-data.")
        return parse_request(body)

    def _typed(self, fields: dict[str, Any]) -> dict[str, Any]:
        for name, value in fields.items():
            if not isinstance(value, str):
                continue
            if name in self.number_fields and value.isascii() and value.isdigit() and len(value) <= 16:
                fields[name] = int(value)
            elif name in self.flag_fields and value.lower() in ("true", "false"):
                fields[name] = value.lower() == "true"
        return fields


def parse_form(body: bytes, *, content_type: str) -> dict[str, Any]:
    """The fields of a form: text as `str`; files, and what may be there several times (`name[]`), as lists.

    Raises `ArgumentError` for what is no complete form, for more than `MAX_PARTS` parts, for encoded parts, and for a
    text that is there twice: two readers could take different ones of them.
    """
    match = _FORM.fullmatch(content_type.strip())
    if match is None or content_type.lower().count("boundary=") != 1:
        raise ArgumentError("The Content-Type must be multipart/form-data with one boundary.")
    border = b"\r\n--" + (match[1] or match[2]).encode("latin-1", "replace")
    parts = (b"\r\n" + body).split(border, MAX_PARTS + 2)
    if len(parts) > MAX_PARTS + 2:
        raise ArgumentError(f"The form has more than {MAX_PARTS} parts; send fewer.")
    if len(parts) < 2 or parts[0] not in (b"", b"\r\n") or parts[-1].rstrip(b" \t\r\n") != b"--":
        raise ArgumentError("The form is not complete, or has text around its parts.")
    fields: dict[str, Any] = {}
    for part in parts[1:-1]:
        _add(fields, part)
    return fields


def file_sizes(fields: dict[str, Any], *names: str) -> list[int]:
    """The sizes in bytes of the files under `names`, and under `name[]`."""
    found = [one for name in names for key in (name, f"{name}[]") for one in _listed(fields.get(key))]
    return [one.size_bytes for one in found if isinstance(one, FormFile)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _add(fields: dict[str, Any], part: bytes) -> None:
    end = part.find(b"\r\n\r\n", 0, MAX_PART_HEADER_BYTES)
    if not part.startswith(b"\r\n") or end < 0:
        raise ArgumentError("A part of the form has no proper headers.")
    name, is_file = _named(part[2:end].decode("latin-1"))
    value: FormFile | str
    if is_file:
        value = FormFile(len(part) - end - 4)
    else:
        try:
            value = part[end + 4 :].decode("utf-8")
        except UnicodeDecodeError:
            raise ArgumentError("A text of the form is not UTF-8.") from None
    if is_file or name.endswith("[]"):
        listed = fields.setdefault(name, [])
        if not isinstance(listed, list):
            raise ArgumentError("The form has a name for a text and for a file; send each name once.")
        listed.append(value)
    elif name in fields:
        raise ArgumentError("The form has the same name twice; send each name once.")
    else:
        fields[name] = value


def _named(headers: str) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    found: dict[str, str] | None = None
    for line in headers.split("\r\n"):
        header, colon, value = line.partition(":")
        kind = header.lower()
        if not colon or kind != kind.strip():
            raise ArgumentError("A part of the form has a broken header.")
        if kind == "content-transfer-encoding" and value.strip().lower() not in _PLAIN_ENCODINGS:
            raise ArgumentError("An encoded part of a form is not accepted here; send it plain.")
        if kind == "content-disposition":
            if found is not None:
                raise ArgumentError("A part of the form has two names.")
            found = _parameters(value)
    if found is None or not found.get("name"):
        raise ArgumentError("A part of the form has no name.")
    return found["name"], "filename" in found or "filename*" in found


def _parameters(value: str) -> dict[str, str]:
    disposition = _DISPOSITION.fullmatch(value)
    rest = disposition[1] if disposition is not None else "?"
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None or match[1].lower() in found or match[1].lower() == "name*":
            raise ArgumentError("A part of the form has a Content-Disposition that cannot be read for certain.")
        found[match[1].lower()] = match[2] if match[2] is not None else match[3]
        at = match.end()
    return found
