"""Published path of `MemoryStore`; defined in `ducto.stores.memory`."""

from ducto.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
