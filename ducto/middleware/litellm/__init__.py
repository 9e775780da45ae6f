"""Metering within the LiteLLM proxy: a callback that reserves before each call and charges after it.

In the proxy's config, `callbacks: ducto.middleware.litellm.hook` takes a hook that the environment configures, see
`ducto.middleware.litellm.environment`; or name an instance of `DuctoHook`, or of a class of yours derived from it, in
a module of your own. Needs the extra `litellm`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ducto.errors import ConfigError
from ducto.middleware.litellm.options import CacheHits, IdentifyKey, Payer, PriceSource

if TYPE_CHECKING:
    from ducto.middleware.litellm.proxy_hook import DuctoHook

    hook: DuctoHook

__all__ = ["CacheHits", "DuctoHook", "IdentifyKey", "Payer", "PriceSource", "hook"]


def __getattr__(name: str) -> Any:
    """`DuctoHook` and `hook` load LiteLLM, so they load when they are asked for."""
    if name not in ("DuctoHook", "hook"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import_module("litellm.integrations.custom_logger")
    except ImportError as error:
        raise ConfigError(
            f"{__name__}.{name} needs LiteLLM; install it with: pip install 'ducto[litellm]' ({error})"
        ) from error
    if name == "DuctoHook":
        return import_module("ducto.middleware.litellm.proxy_hook").DuctoHook
    made = import_module("ducto.middleware.litellm.environment").hook_from_environment()
    globals()["hook"] = made
    return made
