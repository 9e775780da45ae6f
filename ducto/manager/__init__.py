"""`CreditManager`, the piece behind every door: policy, prices, a store and events."""

from ducto.manager.credit_manager import CreditManager
from ducto.manager.offline import FailOpen

__all__ = ["CreditManager", "FailOpen"]
