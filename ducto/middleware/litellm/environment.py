"""A hook that the environment configures, for a proxy without a module of its own.

* `DUCTO_STORE`: where the books are, as `ducto.stores.opening.open_store` names it; required. Tables and functions
  must be there (`ducto migrate`), and a pricing config be published.
* `DUCTO_LITELLM_IDENTITY`: `user` (default), `team` or `key`.
* `DUCTO_LITELLM_PRICE`: `pricing_config` (default) or `response_cost`.
* `DUCTO_LITELLM_CACHE_HITS`: `free` (default) or `charge`.
* `DUCTO_LITELLM_UNMETERED`: `refuse` (default) or `log`.
* `DUCTO_LITELLM_MISSING_USAGE`: `estimate` (default) or `reserved`.
* `DUCTO_LITELLM_DEFAULT_OUTPUT_TOKENS`: 16384 by default.
* `DUCTO_JOURNAL`: the folder of the settle journal, `off` for none; by default one for the user who runs the proxy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.middleware.litellm.proxy_hook import DuctoHook
from ducto.stores.opening import open_store

__all__ = ["hook_from_environment"]

_STORE = "DUCTO_STORE"
_CHOICES: Mapping[str, str] = {
    "DUCTO_LITELLM_IDENTITY": "identity",
    "DUCTO_LITELLM_PRICE": "price",
    "DUCTO_LITELLM_CACHE_HITS": "cache_hits",
    "DUCTO_LITELLM_UNMETERED": "unmetered",
    "DUCTO_LITELLM_MISSING_USAGE": "missing_usage",
}
_DEFAULT_OUTPUT_TOKENS = "DUCTO_LITELLM_DEFAULT_OUTPUT_TOKENS"


def hook_from_environment(environment: Mapping[str, str] = os.environ) -> DuctoHook:
    """A hook as the variables say. Its store connects at the first call. Raises `ConfigError` that names a variable."""
    url = environment.get(_STORE)
    if not url:
        raise ConfigError(f"Set {_STORE} to the store that has the books, as in postgresql://user:password@host/db.")
    options: dict[str, Any] = {
        name: environment[variable] for variable, name in _CHOICES.items() if variable in environment
    }
    tokens = environment.get(_DEFAULT_OUTPUT_TOKENS)
    if tokens is not None:
        if not tokens.isdecimal():
            raise ConfigError(f"{_DEFAULT_OUTPUT_TOKENS} must be a whole number of tokens, not {tokens!r}.")
        options["default_output_tokens"] = int(tokens)
    return DuctoHook(CreditManager(open_store(url)), **cast("Any", options))
