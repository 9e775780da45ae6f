"""Checks the tree of an expression and turns it into a Python function.

Every part has one kind, known when the config is published: a number, a text, or a truth. So what would be a
type error at evaluation, such as comparing a text with a number, is an error at publish with its position.

The function is built from `ast` nodes rather than from source text: no name or text of the config ever
becomes code, and Python's limits on nested brackets do not apply.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias, TypeVar, assert_never

from ducto.pricing.expression_functions import FUNCTIONS, floor_divide, modulo
from ducto.pricing.expression_lexer import fail
from ducto.pricing.expression_parser import (
    Arithmetic,
    Call,
    Comparison,
    Conditional,
    Logic,
    Name,
    Negation,
    Node,
    Number,
    Sign,
    Text,
)
from ducto.pricing.suggestions import did_you_mean, nearest

__all__ = ["Kind", "build_function"]

Kind: TypeAlias = Literal["number", "text", "truth"]
_Typed: TypeAlias = tuple[ast.expr, Kind]
_Expr = TypeVar("_Expr", bound=ast.expr)

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
    "in": ast.In,
    "not in": ast.NotIn,
}
_OPERATORS: dict[str, type[ast.operator]] = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div}
_OPERATOR_FUNCTIONS: dict[str, Callable[[Decimal, Decimal], Decimal]] = {"//": floor_divide, "%": modulo}


def _at(node: _Expr) -> _Expr:
    """Python wants a place in the source on every node; `ast.fix_missing_locations` would recurse for it."""
    node.lineno = 1
    node.col_offset = 0
    return node


def _read(name: str) -> ast.expr:
    return _at(ast.Name(name, ast.Load()))


class _Builder:
    def __init__(self, text: str, kinds: Mapping[str, Kind]) -> None:
        self._text = text
        self._kinds = kinds
        self.namespace: dict[str, object] = {"__builtins__": {}}
        self.parameters: dict[str, str] = {}
        self._temporaries = 0

    def build(self, node: Node) -> _Typed:
        match node:
            case Number(value=value):
                return self._constant(value), "number"
            case Text(value=value):
                return _at(ast.Constant(value)), "text"
            case Name():
                return self._name(node)
            case Sign(operator=operator, operand=operand):
                sign = ast.USub() if operator == "-" else ast.UAdd()
                return _at(ast.UnaryOp(sign, self._number(operand, f"{operator} takes"))), "number"
            case Negation(operand=operand):
                return _at(ast.UnaryOp(ast.Not(), self.build(operand)[0])), "truth"
            case Arithmetic():
                return self._arithmetic(node), "number"
            case Comparison():
                return self._comparison(node), "truth"
            case Logic():
                return self._logic(node)
            case Conditional():
                return self._conditional(node)
            case Call():
                return self._call(node), "number"
            case _:
                assert_never(node)

    def _constant(self, value: object) -> ast.expr:
        name = f"c{len(self.namespace)}"
        self.namespace[name] = value
        return _read(name)

    def _number(self, node: Node, what: str) -> ast.expr:
        built, kind = self.build(node)
        if kind == "truth":
            hint = "write if(condition, 1, 0) to count a condition"
            fail(f"{what} numbers, and this is a condition ({hint}),", self._text, node.position)
        if kind == "text":
            fail(f"{what} numbers, and this is a text,", self._text, node.position)
        return built

    def result(self, node: Node) -> ast.expr:
        return self._number(node, "a price is made of")

    def _name(self, node: Name) -> _Typed:
        kind = self._kinds.get(node.name)
        if kind is None:
            suggestion = nearest(node.name, self._kinds)
            message = f"unknown name {node.name!r}{did_you_mean(suggestion)}"
            if node.name in FUNCTIONS:
                message = f"{node.name!r} is a function and needs its arguments"
            fail(message, self._text, node.position, suggestion=suggestion)
        return _read(self.parameters.setdefault(node.name, f"v{len(self.parameters)}")), kind

    def _arithmetic(self, node: Arithmetic) -> ast.expr:
        operators = "/".join(dict.fromkeys(operator for operator, _ in node.rest))
        left = self._number(node.first, f"{operators} takes")
        for operator, operand in node.rest:
            right = self._number(operand, f"{operator} takes")
            if operator in ("/", "//", "%") and isinstance(operand, Number) and operand.value == 0:
                fail("division by zero", self._text, operand.position)
            if operator in _OPERATORS:
                left = _at(ast.BinOp(left, _OPERATORS[operator](), right))
            else:
                left = _at(ast.Call(self._constant(_OPERATOR_FUNCTIONS[operator]), [left, right], []))
        return left

    def _comparison(self, node: Comparison) -> ast.expr:
        left, left_kind = self.build(node.first)
        operators: list[ast.cmpop] = []
        operands: list[ast.expr] = []
        for operator, operand in node.rest:
            right, right_kind = self.build(operand)
            if operator in ("in", "not in") and (left_kind, right_kind) != ("text", "text"):
                fail(f"{operator} looks for a text in a text,", self._text, operand.position)
            if left_kind != right_kind:
                fail(f"a {left_kind} cannot be compared with a {right_kind}", self._text, operand.position)
            if left_kind == "truth" and operator not in ("==", "!="):
                fail(f"conditions cannot be ordered with {operator}", self._text, operand.position)
            operators.append(_COMPARISONS[operator]())
            operands.append(right)
            left_kind = right_kind
        return _at(ast.Compare(left, operators, operands))

    def _logic(self, node: Logic) -> _Typed:
        """Like Python's, `and` and `or` give one of their operands: `cache_read_tokens or input_tokens` is a
        number.

        Operands of different kinds can only serve as a condition.
        """
        parts = [self.build(operand) for operand in node.operands]
        operator = ast.And() if node.operator == "and" else ast.Or()
        joined = _at(ast.BoolOp(operator, [part for part, _ in parts]))
        kinds = {kind for _, kind in parts}
        if len(kinds) == 1:
            return joined, kinds.pop()
        return _at(ast.UnaryOp(ast.Not(), _at(ast.UnaryOp(ast.Not(), joined)))), "truth"

    def _conditional(self, node: Conditional) -> _Typed:
        condition, _ = self.build(node.condition)
        yes, kind = self.build(node.yes)
        no, other_kind = self.build(node.no)
        if kind != other_kind:
            fail(f"one branch is a {kind}, the other a {other_kind},", self._text, node.no.position)
        return _at(ast.IfExp(condition, yes, no)), kind

    def _call(self, node: Call) -> ast.expr:
        function = FUNCTIONS.get(node.function)
        if function is None:
            suggestion = nearest(node.function, (*FUNCTIONS, "if"))
            message = f"unknown function {node.function!r}{did_you_mean(suggestion)}"
            fail(message, self._text, node.position, suggestion=suggestion)
        count = len(node.arguments)
        if count < function.least or (function.most is not None and count > function.most):
            fail(f"{node.function}() takes {function.arity()}, not {count},", self._text, node.position)
        arguments = [self._number(argument, f"{node.function}() takes") for argument in node.arguments]
        if function.run is None:
            return self._tier(node, arguments)
        self._check_literals(node)
        return _at(ast.Call(self._constant(function.run), arguments, []))

    def _check_literals(self, node: Call) -> None:
        """What `round` and `percentile` would refuse at each evaluation is refused now where it is written
        out.
        """
        first, *others = node.arguments
        if node.function == "percentile" and isinstance(first, Number) and first.value > 100:
            fail("percentile() takes a first argument from 0 to 100", self._text, first.position)
        if node.function == "round" and others and isinstance(others[0], Number):
            places = others[0]
            if places.value != places.value.to_integral_value():
                fail("round() takes a whole number of places", self._text, places.position)

    def _tier(self, node: Call, arguments: list[ast.expr]) -> ast.expr:
        """`r1 if (t := v) < t1 else r2 if t < t2 else default`: the value once, of the rates only the chosen
        one.
        """
        if len(arguments) % 2:
            fail(
                "tier() takes a value, pairs of threshold and rate, and a default: "
                f"an even number of arguments, not {len(arguments)},",
                self._text,
                node.position,
            )
        value, *pairs, chosen = arguments
        name = f"t{self._temporaries}"
        self._temporaries += 1
        for index in range(len(pairs) - 2, -1, -2):
            tested = _read(name)
            if index == 0:
                tested = _at(ast.NamedExpr(_at(ast.Name(name, ast.Store())), value))
            below = _at(ast.Compare(tested, [ast.Lt()], [pairs[index]]))
            chosen = _at(ast.IfExp(below, pairs[index + 1], chosen))
        return chosen


def build_function(text: str, node: Node, kinds: Mapping[str, Kind]) -> tuple[tuple[str, ...], Callable[..., Decimal]]:
    """The names that the expression reads, and a function of their values in that order.

    `kinds` are the names that it may read. Raises `ExpressionError` with the position of the first fault.
    """
    builder = _Builder(text, kinds)
    body = builder.result(node)
    tree = ast.parse(f"lambda {', '.join(builder.parameters.values())}: 0", mode="eval")
    assert isinstance(tree.body, ast.Lambda)
    tree.body.body = body
    code = compile(tree, "<pricing expression>", "eval")
    function: Callable[..., Decimal] = eval(code, builder.namespace)  # the tree holds only the nodes made above
    return tuple(builder.parameters), function
