"""Stores from URLs, and the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from ducto.errors import ConfigError
from ducto.stores.memory import MemoryStore
from ducto.stores.opening import open_store
from ducto.stores.postgres import PostgresStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import mint_jwt


async def test_the_embedded_store_keeps_its_books(books_folder: Path) -> None:
    folder = books_folder / "books"
    async with open_store(f"embedded:{folder}") as store:
        assert isinstance(store, PostgresStore)
        assert (await store.setup()).success
        await store.add_credits("ann", 70)
    async with PostgresStore.embedded(folder) as store:
        assert (await store.setup()).applied == ()
        assert (await store.get_balance("ann")).balance == 70


async def test_urls_name_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    key = mint_jwt("x" * 32, "service_role")
    assert isinstance(open_store("memory"), MemoryStore)
    assert isinstance(open_store("memory://"), MemoryStore)
    assert isinstance(open_store("postgresql://ann@127.0.0.1/x"), PostgresStore)
    assert isinstance(open_store("postgres://ann@127.0.0.1/x"), PostgresStore)
    assert isinstance(open_store("https://x.supabase.co", key=key), HttpxSupabaseStore)
    monkeypatch.setenv("DUCTO_SUPABASE_KEY", key)
    assert isinstance(open_store("https://x.supabase.co"), HttpxSupabaseStore)


@pytest.mark.parametrize(
    "url", ["", "memory:x", "embedded:", "mysql://ann:canary@h/x", "/a/path", "https://x.supabase.co"]
)
def test_what_names_no_store_is_refused_without_repeating_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUCTO_SUPABASE_KEY", "SUPABASE_SERVICE_ROLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "canary" not in str(caught.value)


def test_the_published_paths() -> None:
    from ducto.interface import postgres, supabase
    from ducto.migrate import run_migrations

    assert postgres.PostgresStore is PostgresStore
    assert supabase.HttpxSupabaseStore is HttpxSupabaseStore
    assert supabase.run_migrations is run_migrations
