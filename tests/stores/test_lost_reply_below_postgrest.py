"""The reply of Postgres to PostgREST is lost: the call is repeated under its key, not taken for refused."""

from __future__ import annotations

import asyncio

from ducto.migrate import migrate
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import Database, PostgresServer, PostgrestServer, new_database, postgres_server
from ducto.testing.servers.databases import create_supabase_roles
from tests.faults.network import Link


async def test_a_lost_reply_of_the_database_is_no_refusal() -> None:
    server = postgres_server()
    await create_supabase_roles(server)
    async with new_database(server) as database:
        assert (await migrate(database.url)).success
        link = Link(server.port)
        await link.open()
        behind = PostgresServer(None, f"postgresql://postgres@127.0.0.1:{link.port}/postgres")
        rest = PostgrestServer(Database(behind, database.name, database.url, database.superuser_url))
        try:
            await asyncio.to_thread(rest.start)
            async with HttpxSupabaseStore(url=rest.url, key=rest.key(), rest_path="") as store:
                await store.add_credits("ann", 100)
                link.drop_replies(1)
                # PostgREST answers 400 without a code, whether or not the charge is booked.
                assert (await store.charge_credits("ann", 1, idempotency_key="k")).ok
                assert link.happened["drop"] == 1
                assert (await store.get_balance("ann")).balance == 99
        finally:
            rest.stop()
            await link.close()
