"""What the pages about stores and scaling repeat from the code is the code's."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from ducto.errors import StoreError
from ducto.stores import opening
from ducto.stores.opening import open_store
from ducto.stores.postgres import PostgresStore
from ducto.stores.postgres_errors import error_of_sqlstate
from ducto.stores.repeating import OutcomeUnknownError
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import mint_jwt
from tests.docs.markdown_files import MARKDOWN_FILES, ROOT, rows_of

STORES = ROOT / "docs/stores.md"
POSTGRES = ROOT / "docs/postgres.md"
SUPABASE = ROOT / "docs/supabase.md"
SCALING = ROOT / "docs/scaling.md"
MIGRATIONS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "migrations").glob("0*.sql")))


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(
    ("page", "store", "undocumented"),
    [
        (POSTGRES, PostgresStore, {"self", "dsn"}),
        (SUPABASE, HttpxSupabaseStore, {"self"}),
    ],
    ids=["PostgresStore", "HttpxSupabaseStore"],
)
def test_options_and_their_defaults(page: Path, store: type, undocumented: set[str]) -> None:
    listed = {
        _code(name)[0]: ast.literal_eval(_code(default)[0]) if default else inspect.Parameter.empty
        for name, _, default in rows_of(page, heading=f"Options of {store.__name__}")
    }
    parameters = inspect.signature(store).parameters
    assert listed == {name: each.default for name, each in parameters.items() if name not in undocumented}


def test_urls_name_the_stores_that_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(opening.KEY_VARIABLES[0], mint_jwt("x" * 32, "service_role"))
    rows = rows_of(STORES, heading="A store from a URL")
    assert len(rows) == 4
    for url, store in rows:
        assert type(open_store(_code(url)[0])).__name__ == _code(store)[0]
    assert all(f"`{name}`" in STORES.read_text(encoding="utf-8") for name in opening.KEY_VARIABLES)


def test_error_codes_do_what_the_page_says() -> None:
    def told(error: StoreError) -> str:
        if isinstance(error, OutcomeUnknownError):
            return "repeats, then raises, retryable"
        if error.busy:
            return "raises at once, retryable and `busy`"
        return "raises at once, retryable" if error.retryable else "raises at once"

    rows = rows_of(POSTGRES, heading="Errors of PostgresStore")
    assert len(rows) >= 6
    for codes, _, does in rows:
        for code in _code(codes):
            error = error_of_sqlstate(code, "function public.ducto_reserve does not exist")
            assert told(error) == does.partition(":")[0], code
            assert all(name.removeprefix("`") in str(error) for name in _code(does.partition(":")[2]))


def test_messages_of_the_supabase_store_are_its_own() -> None:
    source = (ROOT / "ducto/stores/supabase.py").read_text(encoding="utf-8")
    for told, _ in rows_of(SUPABASE, heading="Errors of HttpxSupabaseStore"):
        for message in re.findall(r'"([^"]+)"', told):
            assert message in source


def test_scaling_page_lists_every_table_with_its_key() -> None:
    keys = {
        name: body.split("primary key (")[1].split(")")[0].split(", ") if "primary key (" in body else []
        for name, body in re.findall(r"create table ducto\.(\w+) \((.*?)\n\)", MIGRATIONS, re.DOTALL)
    }
    listed = rows_of(SCALING, heading="What an account is made of")
    assert {_code(row[0])[0] for row in listed} == set(keys)
    for name, key, owner in listed:
        columns = keys[_code(name)[0]]
        if owner == "everybody":
            assert columns[:2] != ["account_kind", "account_id"]
        else:
            assert columns == ["account_kind", "account_id", *_code(key)]


def test_scaling_page_says_of_every_table_how_it_grows() -> None:
    tables = set(re.findall(r"create table ducto\.(\w+) ", MIGRATIONS))
    listed = {name for row in rows_of(SCALING, heading="What grows") for name in _code(row[0])}
    # A row for each team, as for its account; a row for each plan; one row.
    assert listed == tables - {"teams", "plans", "active_pricing"}


def test_variables_of_the_tests_exist() -> None:
    """What CONTRIBUTING says can be set is read somewhere."""
    code = "\n".join(
        path.read_text(encoding="utf-8") for folder in ("ducto", "tests") for path in (ROOT / folder).rglob("*.py")
    )
    for path in MARKDOWN_FILES:
        for name in re.findall(r"\bDUCTO_[A-Z_]+", path.read_text(encoding="utf-8")):
            assert f'"{name}"' in code, f"{path.relative_to(ROOT)} names {name}, which nothing reads"
