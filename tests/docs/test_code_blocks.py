"""What the documentation shows runs: its Python, its pricing configs, and its links."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ducto.pricing import compile_pricing, parse_pricing
from tests.docs.markdown_files import MARKDOWN_FILES, ROOT, Block, anchors_of, blocks_of, links_of

BLOCKS = [block for path in MARKDOWN_FILES for block in blocks_of(path)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
YAML = [block for block in BLOCKS if block.language == "yaml"]
LINKS = [(path, link) for path in MARKDOWN_FILES for link in links_of(path)]


#: What a block names -> the fixture that provides it; the first that fits.
SURROUNDINGS = {
    "REDIS_URL": "redis_in_environment",
    "SUPABASE_URL": "postgrest_in_environment",
    "DATABASE_URL": "database_in_environment",
    "~/": "short_home",
}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_python_block_runs(block: Block, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    """Each block is a program of its own; where a `text` block follows, it prints exactly that."""
    needed = next((fixture for name, fixture in SURROUNDINGS.items() if name in block.text), None)
    if needed is not None:
        request.getfixturevalue(needed)
        capsys.readouterr()  # What the servers said.
    # Blank lines in front, so that a traceback names the line of the Markdown file.
    code = compile("\n" * block.line + block.text, str(block.path), "exec", dont_inherit=True)
    exec(code, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    if block.output is not None:
        assert printed == block.output


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_yaml_block_is_a_pricing_config(block: Block) -> None:
    """Every YAML block of the documentation is a whole pricing config that can be published."""
    compile_pricing(parse_pricing(yaml.safe_load(block.text)))


@pytest.mark.parametrize(("path", "link"), LINKS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_relative_link_leads_somewhere(path: Path, link: str) -> None:
    if "://" in link:
        return
    target, _, anchor = link.partition("#")
    file = (path.parent / target).resolve() if target else path
    assert file.exists(), f"{path.relative_to(ROOT)} links to {link}, which is not there"
    if anchor:
        assert anchor in anchors_of(file), f"{path.relative_to(ROOT)} links to {link}: no such heading"


def test_blocks_were_found() -> None:
    """A change of the fences, or of the folders, must not leave the tests above with nothing to do."""
    assert len(PYTHON) >= 10
    assert len(YAML) >= 2
    assert any(block.output for block in PYTHON)
    for name in SURROUNDINGS:
        assert any(name in block.text for block in PYTHON), f"no block needs {name} any more"
    assert any("://" not in link for _, link in LINKS)
