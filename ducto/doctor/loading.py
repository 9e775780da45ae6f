"""An app, or a manager, by the name `module:attribute`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from ducto.errors import ConfigError

__all__ = ["PROVIDER_VARIABLES", "load", "provider_in_environment"]

#: Where SDKs look for the address of their provider, and whether it ends with the version of the API.
PROVIDER_VARIABLES: Mapping[str, str] = {
    "OPENAI_BASE_URL": "{url}/v1",
    "OPENAI_API_BASE": "{url}/v1",
    "ANTHROPIC_BASE_URL": "{url}",
    "GOOGLE_GEMINI_BASE_URL": "{url}",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "{url}",
    "DUCTO_PROVIDER_URL": "{url}",
}
#: Keys without which SDKs do not start. Real ones are kept from the app, so that no canary can spend money.
_KEY_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


@contextmanager
def provider_in_environment(url: str) -> Iterator[None]:
    """Let what is loaded within the block find its providers at `url`, and no real key."""
    given = {name: pattern.format(url=url) for name, pattern in PROVIDER_VARIABLES.items()}
    given |= dict.fromkeys(_KEY_VARIABLES, "ducto-doctor")
    before = {name: environ.get(name) for name in given}
    environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


def load(target: str) -> Any:
    """What `target` names; a function without parameters is called for it. Modules are found from here too.

    Raises `ConfigError` for what is not there.
    """
    module_name, colon, attribute = target.partition(":")
    if not module_name or not colon or not attribute:
        raise ConfigError(f"{target!r} names no app; write it as module:attribute, for example myapp.main:app.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
        makes_it = inspect.isfunction(found) and not inspect.signature(found).parameters
        return found() if makes_it else found
    except Exception as error:
        # Whatever an app raises while it is put together, it could not be tried.
        raise ConfigError(f"{target!r} cannot be loaded: {type(error).__name__}: {error}") from error
