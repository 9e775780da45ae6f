"""The page about observability names all that is exported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ducto.middleware.providers import DEFAULT_ROUTES
from ducto.telemetry import attributes, calls, instruments
from ducto.telemetry.calls import COUNTED_EVENTS
from tests.docs.markdown_files import ROOT

PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
NAME = re.compile(r'"((?:gen_ai|ducto|error|user)\.[a-z_.]+)"')


@pytest.mark.parametrize("module", [attributes, calls, instruments], ids=lambda module: module.__name__)
def test_every_attribute_and_metric_is_on_the_page(module: object) -> None:
    names = set(NAME.findall(Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8")))
    assert names
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize("name", sorted({provider.name for provider in DEFAULT_ROUTES.values()}))
def test_every_route_has_an_operation_and_a_provider_of_the_conventions(name: str) -> None:
    known = attributes.operation_attributes(name)
    assert known["gen_ai.operation.name"] in {"chat", "text_completion", "embeddings", "generate_content"}
    assert f"`{known['gen_ai.provider.name']}`" in PAGE


def test_every_counted_event_is_rarer_than_calls() -> None:
    assert not {"credits.reserved", "credits.deducted", "credits.charged", "credits.released"} & set(COUNTED_EVENTS)
