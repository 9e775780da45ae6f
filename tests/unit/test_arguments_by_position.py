"""On the hottest path arguments are passed by position, by the memory store and where holds and rows are built.

Each must stand where it belongs.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

import pytest

from ducto import ledger
from ducto.ledger import movement
from ducto.ledger.reserve import reserve
from ducto.ledger.state import Hold, Row
from ducto.stores.memory import MemoryStore


def passed_to(call: str, within: Callable[..., object]) -> list[ast.expr]:
    """The positional arguments of the only call of `call` in the source of `within`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(within)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == call]
    assert len(calls) == 1
    assert not calls[0].keywords
    return calls[0].args


@pytest.mark.parametrize(
    ("verb", "method"),
    [(ledger.reserve, MemoryStore.reserve_credits), (ledger.deduct, MemoryStore.deduct_credits)],
)
def test_the_store_names_each_argument_as_the_rule_does(
    verb: Callable[..., object], method: Callable[..., object]
) -> None:
    names = [ast.unparse(each) for each in passed_to(f"ledger.{verb.__name__}", method)]
    assert names[:2] == ["self._book", "self._clock()"]
    assert names[2:] == list(inspect.signature(verb).parameters)[2:]


@pytest.mark.parametrize(("built", "function"), [(Hold, reserve), (Row, movement.write_row)], ids=["Hold", "Row"])
def test_what_is_built_by_position_has_each_name_in_its_place(built: type, function: Callable[..., object]) -> None:
    """Wherever a plain name is passed that a field has as well, it must be that field's place."""
    fields = list(inspect.signature(built).parameters)
    arguments = passed_to(built.__name__, function)
    for place, each in enumerate(arguments):
        name = each.attr if isinstance(each, ast.Attribute) else each.id if isinstance(each, ast.Name) else None
        if name in fields:
            assert fields[place] == name
    assert len(arguments) >= sum(
        parameter.default is parameter.empty for parameter in inspect.signature(built).parameters.values()
    )
