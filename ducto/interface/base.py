"""Published path of `CreditStore`; defined in `ducto.stores.base`."""

from ducto.stores.base import CreditStore

__all__ = ["CreditStore"]
