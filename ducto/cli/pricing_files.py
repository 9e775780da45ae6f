"""Pricing configs as the command line names them: files, and versions in the store."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from ducto.cli.running import Books
from ducto.errors import ArgumentError, ConfigError, PricingNotFoundError
from ducto.models import PricingConfigData, PricingConfigResult

__all__ = ["active_or_refused", "config_text", "is_file", "published", "version_number", "write_config"]

_ENDINGS = (".json", ".yaml", ".yml")


def is_file(text: str) -> bool:
    """Does `text` name a file, rather than a version?"""
    return Path(text).suffix.lower() in _ENDINGS


def config_text(config: PricingConfigData, *, ending: str = ".json") -> str:
    """A config as a file has it: what is as by default is left out, prices are exact."""
    plain: dict[str, Any] = {
        "version": config.version,
        **config.model_dump(mode="json", exclude_defaults=True, exclude={"version"}),
    }
    if ending == ".json":
        return json.dumps(plain, ensure_ascii=False, indent=2) + "\n"
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ConfigError("Writing YAML needs the extra 'yaml': pip install 'ducto[yaml]'; or write .json.") from None
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return text


def write_config(config: PricingConfigData, path: Path) -> None:
    """Write `config` in the form that the ending of `path` says. Raises `ConfigError`, `ArgumentError`."""
    if not is_file(str(path)):
        raise ArgumentError(f"--out takes a file that ends in .json, .yaml or .yml, not {path.name!r}.")
    text = config_text(config, ending=path.suffix.lower())
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or type(error).__name__}.") from None


def version_number(text: str) -> int | str:
    """A version as stores take it: digits are its number, all else is its id."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else text


async def active_or_refused(books: Books) -> PricingConfigResult:
    """The active version. Raises `PricingNotFoundError` before the first publish."""
    active = await books.manager.get_active_pricing()
    if active is None:
        raise PricingNotFoundError("No pricing config is published yet: ducto pricing set FILE")
    return active


async def published(books: Books, version: str | None) -> PricingConfigResult:
    """The version with this number or id, `None`: the active one. Raises `PricingNotFoundError`."""
    if version is None:
        return await active_or_refused(books)
    found = await books.manager.get_pricing_config(version_number(version))
    if found is None:
        raise PricingNotFoundError(f"There is no pricing version {version[:80]!r}; `ducto pricing list` shows them.")
    return found
