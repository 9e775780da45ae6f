"""What the documentation shows runs, or is checked: its Python, its pricing configs, its SQL, its data, its links.

Blocks of shell are in `test_shell_blocks`.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
import yaml

from ducto.migrate import migrate
from ducto.pricing import compile_pricing, parse_pricing
from ducto.testing.servers import new_database, postgres_server
from ducto.testing.servers.databases import create_supabase_roles
from tests.docs.markdown_files import MARKDOWN_FILES, ROOT, Block, anchors_of, blocks_of, links_of

BLOCKS = [block for path in MARKDOWN_FILES for block in blocks_of(path)]
LINKS = [(path, link) for path in MARKDOWN_FILES for link in links_of(path)]


def _blocks_in(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


PYTHON = _blocks_in("python")
YAML = _blocks_in("yaml")
SQL = _blocks_in("sql")
DATA = _blocks_in("json", "toml", "yml")
EXCERPTS = _blocks_in("py")

#: What a block names -> the fixture that provides it; the first that fits.
SURROUNDINGS = {
    "REDIS_URL": "redis_in_environment",
    "SUPABASE_URL": "postgrest_in_environment",
    "DATABASE_URL": "database_in_environment",
    "~/": "short_home",
}

#: In the place of what the test's server lacks. Where pg_cron would run a command later, it is run at once; where
#: Citus would distribute a table, it is looked up whether the column to distribute it by is there.
STAND_INS = """
CREATE SCHEMA cron;
CREATE FUNCTION cron.schedule(name text, schedule text, command text) RETURNS bigint LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE command; RETURN 1; END $$;
CREATE FUNCTION public.create_reference_table(name regclass) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION public.create_distributed_table(name regclass, by text, colocate_with regclass DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = name AND attname = by) THEN
            RAISE EXCEPTION '% has no column %', name, by;
        END IF;
    END $$;
"""


def test_every_block_is_of_a_language_that_is_tried() -> None:
    """A fence that the reader of blocks does not see (indented, with attributes, of tildes) would go untested."""
    tried = {"python", "sh", "sql", "yaml", "json", "toml", "yml", "py", "text"}
    assert {block.name: block.language for block in BLOCKS if block.language not in tried} == {}
    for path in MARKDOWN_FILES:
        fences = re.findall(r"^[ >]*(?:```|~~~)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(path)), path.relative_to(ROOT)


def test_every_block_of_text_is_what_the_block_above_it_prints() -> None:
    assert len(_blocks_in("text")) == len([block for block in BLOCKS if block.output is not None])
    assert {block.language for block in BLOCKS if block.output is not None} == {"python"}


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


@pytest.mark.parametrize("block", DATA, ids=lambda block: block.name)
def test_data_block_can_be_read(block: Block) -> None:
    match block.language:
        case "json":
            assert isinstance(json.loads(block.text), dict | list)
        case "toml":
            assert tomllib.loads(block.text)
        case _:
            assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("block", EXCERPTS, ids=lambda block: block.name)
def test_excerpt_is_of_an_example(block: Block) -> None:
    """What cannot run by itself is taken, to the letter, from an example that runs."""
    assert any(block.text in path.read_text(encoding="utf-8") for path in (ROOT / "examples").rglob("*.py"))


async def test_sql_blocks_run() -> None:
    """In order, by the owner of a database that is up to date. Nothing of it stays: roles are the whole server's."""
    server = postgres_server()
    await create_supabase_roles(server)
    async with new_database(server) as database:
        assert (await migrate(database.url)).success
        connection = await asyncpg.connect(database.url)
        try:
            await connection.execute(STAND_INS)
            for block in SQL:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await connection.execute(block.text)
                except asyncpg.PostgresError as error:
                    pytest.fail(f"{block.name}: {error}")
                finally:
                    await transaction.rollback()
        finally:
            await connection.close()


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
    assert len(SQL) >= 3
    assert DATA
    assert EXCERPTS
    assert any(block.output for block in PYTHON)
    for name in SURROUNDINGS:
        assert any(name in block.text for block in PYTHON), f"no block needs {name} any more"
    assert any("://" not in link for _, link in LINKS)
