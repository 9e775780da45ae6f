"""Redis in front of a store: `RedisCacheStore`, and the link that it talks to Redis through."""

from ducto.stores.redis.link import RedisLink
from ducto.stores.redis.store import RedisCacheStore

__all__ = ["RedisCacheStore", "RedisLink"]
