"""The site of the documentation: it builds without a warning, has every page, and its reference every public name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mkdocs.config import load_config

import ducto
from tests.docs.markdown_files import ROOT, links_of

#: What is published beside the names of `ducto`: all that these export is in the reference.
PUBLISHED = [
    "ducto.errors",
    "ducto.events",
    "ducto.explain",
    "ducto.export",
    "ducto.gateway",
    "ducto.gateway.metrics",
    "ducto.interface.base",
    "ducto.interface.memory",
    "ducto.interface.models",
    "ducto.interface.postgres",
    "ducto.interface.redis",
    "ducto.interface.supabase",
    "ducto.manager.observing",
    "ducto.middleware",
    "ducto.middleware.fastapi",
    "ducto.middleware.litellm",
    "ducto.middleware.providers",
    "ducto.middleware.transport",
    "ducto.migrate",
    "ducto.pricing",
    "ducto.pricing.catalogue",
    "ducto.pricing.diff",
    "ducto.simulate",
    "ducto.stores.base",
    "ducto.telemetry",
    "ducto.testing",
    "ducto.testing.clock",
    "ducto.testing.conformance",
    "ducto.testing.coverage",
    "ducto.testing.harness",
    "ducto.testing.servers",
    "ducto.testing.serving",
    "ducto.testing.simulator",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does. What mkdocs, the reference or the links warn of fails it."""
    folder = tmp_path_factory.mktemp("site")
    finished = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "WARNING" not in finished.stderr
    return folder


@pytest.fixture(scope="module")
def documented(site: Path) -> set[str]:
    """The names that the reference has a place for: those of the inventory, which other projects link by.

    Its format is Sphinx's: four lines of text, then compressed lines that each begin with a name.
    """
    compressed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.partition(" ")[0] for line in zlib.decompress(compressed).decode("utf-8").splitlines()}


def test_every_public_name_is_in_the_reference(documented: set[str]) -> None:
    assert [name for name in ducto.__all__ if f"ducto.{name}" not in documented] == []


@pytest.mark.parametrize("module", PUBLISHED)
def test_every_name_of_a_published_module_is_in_the_reference(documented: set[str], module: str) -> None:
    names = importlib.import_module(module).__all__
    assert [name for name in names if f"{module}.{name}" not in documented] == []


def test_the_reference_has_the_methods_and_the_text_of_the_manager(site: Path) -> None:
    page = (site / "reference/manager.html").read_text(encoding="utf-8")
    for method in ("meter", "reserve", "add_credits", "publish_pricing", "create_team", "spend_by_user"):
        assert f'id="ducto.CreditManager.{method}"' in page
    assert "reserve before, deduct after, exactly once" in page


def test_every_page_is_in_the_navigation() -> None:
    config = load_config(str(ROOT / "mkdocs.yml"))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    elsewhere = {"changelog.md", "contributing.md", "migrations.md", "security.md"}
    listed = list(_pages_of(config.nav))
    assert len(listed) == len(set(listed))
    assert set(listed) == pages | elsewhere


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs/decisions"
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert set(links_of(folder / "README.md")) == pages


def test_links_to_files_of_the_project_lead_to_pages_of_the_site(site: Path) -> None:
    for page, target in (
        ("postgres.html", "security.html#what-is-not-defended"),
        ("fastapi.html", "source/examples/fastapi_gateway.py.html"),
        ("security.html", "index.html"),
        ("decisions/ids-name-the-account.html", "../security.html"),
        ("migrations.html", "stores.html#setting-up-the-database"),
    ):
        assert f'href="{target}"' in (site / page).read_text(encoding="utf-8"), page
    source = (site / "source/examples/fastapi_gateway.py.html").read_text(encoding="utf-8")
    assert "MeteringMiddleware" in source


def test_no_table_and_no_list_is_left_as_text(site: Path) -> None:
    """GitHub makes one of lines directly below a paragraph, the site does not."""
    for page in site.rglob("*.html"):
        prose = re.sub(r"<pre.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        left = re.findall(r"^(?:<p>)?(?:\||[-*] ).*", prose, re.MULTILINE)
        assert left == [], page


def test_a_reader_of_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]+href="(?:https?:)?//[^"]+"', text)
        loaded += re.findall(r'<link[^>]+href="(?:https?:)?//[^"]+"[^>]+rel="(?:stylesheet|preconnect|icon)"', text)
        assert loaded == [], page


def _pages_of(navigation: Any) -> Iterator[str]:
    """The files that a navigation names, at every depth."""
    match navigation:
        case str():
            yield navigation
        case list():
            for each in navigation:
                yield from _pages_of(each)
        case dict():
            for each in navigation.values():
                yield from _pages_of(each)
