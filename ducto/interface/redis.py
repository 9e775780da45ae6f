"""Published path of `RedisCacheStore`; defined in `ducto.stores.redis`."""

from ducto.stores.redis import RedisCacheStore

__all__ = ["RedisCacheStore"]
