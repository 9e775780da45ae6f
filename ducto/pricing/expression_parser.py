"""Parses a pricing expression into a small tree, with the precedence of Python's operators.

It is a Pratt parser of its own because `if(c, a, b)` is not Python. Chains of one precedence become one flat
node, so the depth of the tree is the depth of the nesting that the author wrote, which is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn, TypeAlias

from ducto.pricing.expression_lexer import Token, fail, tokenize

__all__ = [
    "MAX_DEPTH",
    "Arithmetic",
    "Call",
    "Comparison",
    "Conditional",
    "Logic",
    "Name",
    "Negation",
    "Node",
    "Number",
    "Sign",
    "Text",
    "parse",
]

MAX_DEPTH = 64

_CONDITIONAL, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN = range(1, 9)
_PRECEDENCE = {
    "if": _CONDITIONAL,
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "in", "not"), _COMPARE),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "//", "%"), _PRODUCT),
}


@dataclass(frozen=True, slots=True)
class Number:
    value: Decimal
    position: int


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    position: int


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Sign:
    """`-x` or `+x`."""

    operator: str
    operand: Node
    position: int


@dataclass(frozen=True, slots=True)
class Negation:
    """`not x`."""

    operand: Node
    position: int


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A chain of one precedence, read from the left: `first`, then each operator with its right side."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    position: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A chain as in Python: `a < b < c` is `a < b and b < c` with b evaluated once."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    position: int


@dataclass(frozen=True, slots=True)
class Logic:
    """Operands joined by one of `and`, `or`."""

    operator: str
    operands: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Conditional:
    """`yes if condition else no`, also written `if(condition, yes, no)`."""

    condition: Node
    yes: Node
    no: Node
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Node, ...]
    position: int


Node: TypeAlias = Number | Text | Name | Sign | Negation | Arithmetic | Comparison | Logic | Conditional | Call


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._index = 0
        self._depth = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _at(self, operator: str) -> bool:
        return self._next.kind == "operator" and self._next.value == operator

    def _accept(self, operator: str) -> bool:
        found = self._at(operator)
        self._index += found
        return found

    def _expect(self, operator: str) -> None:
        if not self._accept(operator):
            self._unexpected(f"expected {operator!r}")

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._next
        found = "the end" if token.kind == "end" else repr(str(token.value))
        fail(f"{expected}, found {found}", self._text, token.position)

    def whole(self) -> Node:
        node = self._expression(0)
        if self._next.kind != "end":
            self._unexpected("expected an operator")
        return node

    def _nested(self, floor: int) -> Node:
        """As `_expression`, one level of nesting deeper."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            fail(f"nested more than {MAX_DEPTH} deep", self._text, self._next.position)
        node = self._expression(floor)
        self._depth -= 1
        return node

    def _expression(self, floor: int) -> Node:
        """An expression whose operators all bind more tightly than `floor`."""
        left = self._operand(floor)
        while self._next.kind == "operator":
            precedence = _PRECEDENCE.get(str(self._next.value), 0)
            if precedence <= floor:
                break
            left = self._joined(left, precedence)
        return left

    def _joined(self, left: Node, precedence: int) -> Node:
        """`left` with all the operators of this precedence that follow it."""
        position = left.position
        if precedence == _CONDITIONAL:
            self._expect("if")
            condition = self._expression(_CONDITIONAL)
            self._expect("else")
            return Conditional(condition, left, self._nested(0), position)
        if precedence in (_OR, _AND):
            operator = str(self._next.value)
            operands = [left]
            while self._accept(operator):
                operands.append(self._expression(precedence))
            return Logic(operator, tuple(operands), position)
        rest: list[tuple[str, Node]] = []
        while self._next.kind == "operator" and _PRECEDENCE.get(str(self._next.value)) == precedence:
            operator = self._operator()
            rest.append((operator, self._expression(precedence)))
        chain = Comparison if precedence == _COMPARE else Arithmetic
        return chain(left, tuple(rest), position)

    def _operator(self) -> str:
        operator = str(self._next.value)
        self._index += 1
        if operator != "not":
            return operator
        self._expect("in")
        return "not in"

    def _operand(self, floor: int) -> Node:
        token = self._next
        position = token.position
        self._index += 1
        match token.kind, token.value:
            case "number", Decimal() as value:
                return Number(value, position)
            case "text", str(value):
                return Text(value, position)
            case "name", str(name):
                return Call(name, self._arguments(), position) if self._at("(") else Name(name, position)
            case "operator", "if":
                return self._if_call(position)
            case "operator", "(":
                node = self._nested(0)
                self._expect(")")
                return node
            case "operator", "-" | "+":
                return Sign(str(token.value), self._nested(_SIGN), position)
            case "operator", "not" if floor < _NOT:
                return Negation(self._nested(_NOT), position)
        self._index -= 1
        return self._unexpected("expected a number, a name or a bracket")

    def _if_call(self, position: int) -> Node:
        if not self._at("("):
            self._unexpected("expected '(' after if")
        arguments = self._arguments()
        if len(arguments) != 3:
            fail(f"if() takes 3 arguments, not {len(arguments)},", self._text, position)
        return Conditional(*arguments, position)

    def _arguments(self) -> tuple[Node, ...]:
        self._expect("(")
        arguments: list[Node] = []
        if self._accept(")"):
            return ()
        while True:
            arguments.append(self._nested(0))
            if self._accept(")"):
                return tuple(arguments)
            self._expect(",")


def parse(text: str) -> Node:
    """The tree of `text`. Raises `ExpressionError` with the position of the first fault."""
    return _Parser(text).whole()
