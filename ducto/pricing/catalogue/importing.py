"""Reads a price list by its name or from a file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ducto.errors import ConfigError
from ducto.pricing.catalogue.genai_prices import read_genai_prices
from ducto.pricing.catalogue.litellm import read_litellm, read_litellm_file
from ducto.pricing.catalogue.sources import ImportedPrices, ModelChoice, SourcePrices
from ducto.pricing.config import compile_pricing, parse_pricing
from ducto.pricing.suggestions import did_you_mean, nearest

__all__ = ["PriceListName", "import_prices"]

PriceListName: TypeAlias = Literal["genai-prices", "litellm"]


def import_prices(
    source: PriceListName | str | Path,
    *,
    models: str | Iterable[str] = "*",
    markup: Decimal = Decimal(1),
    credits_per_dollar: int = 1_000_000,
    as_of: date | None = None,
) -> ImportedPrices:
    """Build a pricing config from a public price list, without the network.

    `source` is `genai-prices` or `litellm`, read from the installed package of that name (LiteLLM without importing
    it), or the path of a copy of LiteLLM's `model_prices_and_context_window.json`. `models` are patterns on the
    names that models have in the config, such as `gpt-*`. Rates stay in dollars as the source states them;
    `markup`, a factor, and `credits_per_dollar` become the config's `markup` and `credits_per_usd`.
    `as_of` is the day (UTC; by default today) whose prices are taken where the source dates them.

    A model whose price a rate table cannot say exactly is skipped with a reason, never approximated. So is one
    that has no price above 0: lists write 0 for "not known" too.

    Raises `ConfigError` where the package is missing, or the path is of no file; `PricingConfigError` where the
    file is no such list, a pattern fits no model, or `markup` is not a factor above 0.
    """
    choice = ModelChoice(models)
    day = as_of if as_of is not None else datetime.now(UTC).date()
    found = _read(source, choice, day)
    config = parse_pricing(
        {
            "models": found.models,
            "aliases": found.aliases,
            "markup": markup,
            "credits_per_usd": credits_per_dollar,
        }
    )
    compile_pricing(config)
    return ImportedPrices(
        config=config, label=found.label, skipped=tuple(found.skipped), notes=tuple(sorted(found.notes))
    )


def _read(source: str | Path, choice: ModelChoice, day: date) -> SourcePrices:
    if source == "genai-prices":
        return read_genai_prices(choice, day)
    if source == "litellm":
        return read_litellm(choice, day)
    path = Path(source)
    if not path.is_file():
        names = get_args(PriceListName)
        hint = did_you_mean(nearest(str(source), names))
        raise ConfigError(f"{str(source)!r} is neither a price list ({', '.join(names)}) nor a file{hint}")
    return read_litellm_file(path, choice)
