"""From usage to credits: reads a pricing config, compiles it, and prices calls by it, exactly."""

from __future__ import annotations

from ducto.pricing.breakdown import CostBreakdown, CostComponent
from ducto.pricing.config import CompiledPricing, compile_pricing, parse_pricing
from ducto.pricing.engine import PricingEngine
from ducto.pricing.expression import evaluate_expression, validate_expression
from ducto.pricing.files import load_pricing_file

__all__ = [
    "CompiledPricing",
    "CostBreakdown",
    "CostComponent",
    "PricingEngine",
    "compile_pricing",
    "evaluate_expression",
    "load_pricing_file",
    "parse_pricing",
    "validate_expression",
]
