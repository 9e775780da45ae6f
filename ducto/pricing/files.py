"""Pricing configs in JSON and YAML files."""

from __future__ import annotations

import importlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from ducto.errors import ConfigError, PricingConfigError
from ducto.models.pricing import PricingConfigData
from ducto.pricing.config import parse_pricing

__all__ = ["load_pricing_file"]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A key that is there twice would silently lose one of its prices."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise PricingConfigError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _read_json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, object_pairs_hook=_unique)


def _read_yaml(text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ConfigError("reading a YAML file needs the extra 'yaml': pip install 'ducto[yaml]'") from None
    try:
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), yaml.MappingNode)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PricingConfigError(f"this is not YAML: {error}") from None


def _check_keys(root: Any, mapping_node: Any) -> None:
    """Refuse a key that is there twice, at any depth; YAML's own reader takes the last one in silence."""
    pending: list[Any] = [root]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        if isinstance(node, mapping_node):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key.value, str) and key.value in keys:
                    raise PricingConfigError(f"the key {key.value!r} is there twice")
                keys.add(str(key.value))
                pending.append(value)
        else:
            pending.extend(node.value)


def load_pricing_file(path: str | Path) -> PricingConfigData:
    """Read a `.json`, `.yaml` or `.yml` file.

    Raises `PricingConfigError` where the content is at fault, and `ConfigError` where the file cannot be read, the
    extra `yaml` is missing, or the ending is another one.
    """
    path = Path(path)
    readers = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: a pricing config is a .json, .yaml or .yml file")
    try:
        return parse_pricing(reader(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except PricingConfigError as error:
        raise PricingConfigError(f"{path}: {error}") from None
    except ValueError as error:  # JSON's syntax, or bytes that are not UTF-8
        raise PricingConfigError(f"{path}: {error}") from None
