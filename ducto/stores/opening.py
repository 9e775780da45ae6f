"""A store from a URL, as the command line and configuration files name it."""

from __future__ import annotations

import os
from typing import NamedTuple

from ducto.errors import ConfigError
from ducto.stores.base import CreditStore

__all__ = ["RedisOfEnvironment", "open_store", "redis_of_environment"]

KEY_VARIABLES = ("DUCTO_SUPABASE_KEY", "SUPABASE_SERVICE_ROLE_KEY")
REDIS_VARIABLES = ("DUCTO_REDIS_URL", "DUCTO_REDIS_PREFIX")


class RedisOfEnvironment(NamedTuple):
    """Which Redis to use, and what the names of all keys there begin with."""

    url: str
    prefix: str


def redis_of_environment() -> RedisOfEnvironment | None:
    """The Redis that `DUCTO_REDIS_URL` names, and `DUCTO_REDIS_PREFIX` (default: ducto); `None` where it is not set."""
    url, prefix = (os.environ.get(name) for name in REDIS_VARIABLES)
    return RedisOfEnvironment(url, prefix or "ducto") if url else None


def open_store(url: str, *, key: str | None = None) -> CreditStore:
    """The store that `url` names; nothing is connected yet, and `setup()` is the caller's to call.

    `memory`; `postgresql://user:password@host/database`; `embedded:FOLDER` (a Postgres of its own in that folder);
    `https://PROJECT.supabase.co`, with the service_role key as `key` or in the environment variable
    `DUCTO_SUPABASE_KEY` or `SUPABASE_SERVICE_ROLE_KEY`. Where `DUCTO_REDIS_URL` is set that Redis is put in front of
    it, as a `RedisCacheStore`, but for `memory`, which begins anew with each process and would find what an earlier one
    kept. Raises `ConfigError` for anything else, without repeating it.
    """
    store = _store_of(url, key)
    redis = redis_of_environment()
    if redis is None or _scheme_of(url) == "memory":
        return store
    from ducto.stores.redis import RedisCacheStore

    return RedisCacheStore(store, redis.url, prefix=redis.prefix, owns_inner=True)


def _scheme_of(url: str) -> str:
    return url.partition(":")[0].lower()


def _store_of(url: str, key: str | None) -> CreditStore:
    scheme, (_, colon, rest) = _scheme_of(url), url.partition(":")
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
