"""`CreditManager`, the piece behind every door: policy, prices, a store and events."""

from ducto.manager.credit_manager import CreditManager

__all__ = ["CreditManager"]
