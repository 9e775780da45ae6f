"""Lists that the documentation repeats from the code are the code's."""

from __future__ import annotations

import ast
import re

from ducto.errors import CREDIT_ERRORS, ExpressionError, PricingConfigError, UnknownModelError
from ducto.events import EVENT_NAMES
from ducto.ledger import verify
from ducto.models import PricingConfigData
from ducto.models.pricing import PlanDefinition, RateTable
from ducto.usage import UsageMetrics
from tests.docs.markdown_files import ROOT, rows_of

CONTRACT = ROOT / "docs/contract.md"
MANAGER = ROOT / "docs/manager.md"
PRICING = ROOT / "docs/pricing.md"

#: Bases of the error tree: nobody raises them with their own code.
ABSTRACT_CODES = {"refused", "conflict"}


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _checks_of_verify() -> set[str]:
    """The names of the checks, as the source of `verify` yields and constructs them."""
    tree = ast.parse((ROOT / "ducto/ledger/verify.py").read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        named: ast.expr | None = None
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            named = node.value.elts[0]
        elif isinstance(node, ast.keyword) and node.arg == "invariant":
            named = node.value
        if isinstance(named, ast.JoinedStr):
            named = named.values[0]
        if isinstance(named, ast.Constant) and isinstance(named.value, str):
            found.add(named.value.rstrip("["))
    return found


def test_contract_names_every_check_of_verify() -> None:
    assert verify is not None
    listed = {name for row in rows_of(CONTRACT, heading="What the audit checks") for name in _names(row[0])}
    assert listed == _checks_of_verify()
    assert len(listed) > 20


def test_contract_gives_every_refusal_its_http_status() -> None:
    listed: dict[str, int] = {}
    for row in rows_of(CONTRACT, heading="Refusals and HTTP"):
        for code in _names(row[1]):
            listed[code] = int(row[0])
    known = {code: cls.http_status for code, cls in CREDIT_ERRORS.items() if code not in ABSTRACT_CODES}
    known |= {cls.code: cls.http_status for cls in (UnknownModelError, ExpressionError, PricingConfigError)}
    assert {code: status for code, status in listed.items() if code in known} == known
    assert set(listed) - set(known) <= {"store_unavailable", "busy", "not_supported"}


def test_manager_page_lists_every_event() -> None:
    listed = {name for row in rows_of(MANAGER, heading="Events") for name in _names(row[0])}
    assert listed == EVENT_NAMES


def test_pricing_page_explains_every_field() -> None:
    text = PRICING.read_text(encoding="utf-8")
    fields = {
        *PricingConfigData.model_fields,
        *PlanDefinition.model_fields,
        *RateTable.model_fields,
        *UsageMetrics.model_fields,
    }
    missing = {name for name in fields if f"`{name}`" not in text}
    assert not missing
