"""A store from a URL, as the command line and configuration files name it."""

from __future__ import annotations

import os

from ducto.errors import ConfigError
from ducto.stores.base import CreditStore

__all__ = ["open_store"]

KEY_VARIABLES = ("DUCTO_SUPABASE_KEY", "SUPABASE_SERVICE_ROLE_KEY")


def open_store(url: str, *, key: str | None = None) -> CreditStore:
    """The store that `url` names; nothing is connected yet, and `setup()` is the caller's to call.

    `memory`; `postgresql://user:password@host/database`; `embedded:FOLDER` (a Postgres of its own in that folder);
    `https://PROJECT.supabase.co`, with the service_role key as `key` or in the environment variable
    `DUCTO_SUPABASE_KEY` or `SUPABASE_SERVICE_ROLE_KEY`. Raises `ConfigError` for anything else, without repeating it.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "memory" and not rest.strip("/"):
        from ducto.stores.memory import MemoryStore

        return MemoryStore()
    if scheme in ("postgresql", "postgres"):
        from ducto.stores.postgres import PostgresStore

        return PostgresStore(url)
    if scheme == "embedded" and colon and rest:
        from ducto.stores.postgres import PostgresStore

        return PostgresStore.embedded(rest.removeprefix("//"))
    if scheme in ("https", "http"):
        return _supabase(url, key)
    raise ConfigError(
        "A store is named as memory, embedded:FOLDER, postgresql://user:password@host/database or "
        "https://PROJECT.supabase.co; this is none of them."
    )


def _supabase(url: str, key: str | None) -> CreditStore:
    from ducto.stores.supabase import HttpxSupabaseStore

    found = key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    if found is None:
        raise ConfigError(f"A Supabase store needs its service_role key; set {KEY_VARIABLES[0]}.")
    return HttpxSupabaseStore(url=url, key=found)
