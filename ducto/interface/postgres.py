"""Published path of `PostgresStore`; defined in `ducto.stores.postgres`."""

from ducto.stores.postgres import PostgresStore

__all__ = ["PostgresStore"]
