"""Pricing configs from public price lists, read offline from the packages that carry them."""

from __future__ import annotations

from ducto.pricing.catalogue.importing import PriceListName, import_prices
from ducto.pricing.catalogue.merging import merged
from ducto.pricing.catalogue.sources import ImportedPrices, ModelNote

__all__ = ["ImportedPrices", "ModelNote", "PriceListName", "import_prices", "merged"]
