"""Published path of `HttpxSupabaseStore` and `run_migrations`."""

from ducto.migrate import run_migrations
from ducto.stores.supabase import HttpxSupabaseStore

__all__ = ["HttpxSupabaseStore", "run_migrations"]
