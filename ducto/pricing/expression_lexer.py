"""Cuts the text of a pricing expression into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from ducto.errors import ExpressionError

__all__ = ["KEYWORDS", "MAX_DIGITS", "MAX_LENGTH", "MAX_TOKENS", "Token", "fail", "tokenize"]

#: Bounds that keep compiling quick and its recursion shallow.
MAX_LENGTH = 4_000
MAX_TOKENS = 1_000
#: Precision of all arithmetic; a literal that would not fit is refused, not rounded.
MAX_DIGITS = 50
MAX_LITERAL_EXPONENT = 100

KEYWORDS = frozenset({"and", "or", "not", "in", "if", "else"})

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<text>"(?:[^"\\\n]|\\["'\\])*"|'(?:[^'\\\n]|\\["'\\])*')
      | (?P<operator>\*\*|//|<=|>=|==|!=|&&|\|\||[-+*/%<>(),=!&|^.\[\]])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\(["'\\])""")

_NOT_IN_THE_LANGUAGE = {
    "**": "there is no power operator; multiply instead",
    ".": "attributes cannot be read here",
    "[": "subscripts cannot be used here",
    "]": "subscripts cannot be used here",
    "=": "write == to compare",
    "!": "write not",
    "&&": "write and",
    "||": "write or",
    "&": "write and",
    "|": "write or",
    "^": "there is no power operator; multiply instead",
}


@dataclass(frozen=True, slots=True)
class Token:
    """`value` is the operator, keyword or name as written, and the meaning of a number or a quoted text."""

    kind: Literal["number", "text", "name", "operator", "end"]
    value: str | Decimal
    position: int


def fail(message: str, text: str, position: int, *, suggestion: str | None = None) -> NoReturn:
    """Raise an `ExpressionError` that says where."""
    raise ExpressionError(f"{message} at position {position}", text=text, position=position, suggestion=suggestion)


def _number(source: str, text: str, position: int) -> Decimal:
    value = Decimal(source)
    _, digits, exponent = value.as_tuple()
    if len(digits) > MAX_DIGITS:
        fail(f"a number has at most {MAX_DIGITS} digits", text, position)
    if not isinstance(exponent, int) or abs(exponent) > MAX_LITERAL_EXPONENT:
        fail("the number is too large or too small", text, position)
    return value


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, with an `end` token last. Raises `ExpressionError` with the position."""
    if len(text) > MAX_LENGTH:
        fail(f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed", text, MAX_LENGTH)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if text[position] in "\"'":
                fail("the quoted text is not closed, or has an escape other than \\\\ \\' \\\"", text, position)
            fail(f"unexpected character {text[position]!a}", text, position)
        source = match.group()
        match match.lastgroup:
            case "number":
                tokens.append(Token("number", _number(source, text, position), position))
            case "text":
                tokens.append(Token("text", _ESCAPE.sub(r"\1", source[1:-1]), position))
            case "name" if source not in KEYWORDS:
                tokens.append(Token("name", source, position))
            case "name" | "operator":
                if source in _NOT_IN_THE_LANGUAGE:
                    fail(f"unexpected {source!r}: {_NOT_IN_THE_LANGUAGE[source]},", text, position)
                tokens.append(Token("operator", source, position))
            case _:
                pass  # white space
        position = match.end()
        if len(tokens) > MAX_TOKENS:
            fail(f"the expression has more than {MAX_TOKENS} parts", text, position)
    tokens.append(Token("end", "", len(text)))
    return tokens
