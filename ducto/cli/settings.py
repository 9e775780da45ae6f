"""Which store and which database: from options, which must hold no secret, or from the environment, which may."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, urlsplit

from ducto.errors import ConfigError

__all__ = ["DATABASE_VARIABLE", "database_url", "store_is_named", "store_url"]

STORE_VARIABLE = "DUCTO_STORE"
DATABASE_VARIABLE = "DUCTO_DATABASE_URL"

#: Parameters of a URL that carry a secret.
_SECRET_PARAMETERS = frozenset({"password", "sslpassword", "apikey", "key", "token"})


def store_url(given: str | None, *, default: str | None = None) -> str:
    """The URL of the store: `given` by `--store`, else DUCTO_STORE, else `default`.

    Raises `ConfigError` where there is none, and for a `given` one with a password in it.
    """
    url = _without_secret(given, option="--store", variable=STORE_VARIABLE) or os.environ.get(STORE_VARIABLE) or default
    if url is None:
        raise ConfigError(
            f"Which store? Set {STORE_VARIABLE}, in the environment or in a .env file, or give --store: "
            "embedded:FOLDER, postgresql://host/database or https://PROJECT.supabase.co."
        )
    return url


def store_is_named(given: str | None) -> bool:
    """Does `--store` or DUCTO_STORE name one?"""
    return bool(given or os.environ.get(STORE_VARIABLE))


def database_url(given: str | None) -> str | None:
    """The database to migrate: `given` by `--database-url`, else DUCTO_DATABASE_URL. Raises as `store_url`."""
    option = _without_secret(given, option="--database-url", variable=DATABASE_VARIABLE)
    return option or os.environ.get(DATABASE_VARIABLE) or None


def _without_secret(url: str | None, *, option: str, variable: str) -> str | None:
    """Arguments are seen by every user of the machine, and stay in the shell's history."""
    if url is not None and _has_secret(url):
        raise ConfigError(
            f"{option} has a password in it, which other users of this machine can see; put the URL into the "
            f"environment variable {variable}, or into a .env file."
        )
    return url


def _has_secret(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = {name.lower() for name, value in parse_qsl(parts.query) if value}
    except ValueError:
        return "@" in url  # Not a URL that can be taken apart; better to refuse one too many.
    return parts.password is not None or not named.isdisjoint(_SECRET_PARAMETERS)
