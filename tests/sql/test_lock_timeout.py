"""How long a locked account is waited for through PostgREST: as long as the role's own setting says."""

from __future__ import annotations

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import StoreError
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import start_postgrest
from tests.conformance.sql_harness import migrated_database


async def test_the_roles_lock_timeout_makes_a_locked_account_busy() -> None:
    async with migrated_database("new", roles=True) as database:
        admin = await asyncpg.connect(database.superuser_url)
        try:
            await admin.execute("ALTER ROLE service_role SET lock_timeout = '300ms'")
            with start_postgrest(database) as server:
                async with HttpxSupabaseStore(url=server.url, key=server.key(), rest_path="") as store:
                    await store.add_credits("ann", 100)
                    async with admin.transaction():
                        await admin.execute("SELECT FROM ducto.accounts WHERE account_id = 'ann' FOR UPDATE")
                        with pytest.raises(StoreError) as caught:
                            await store.charge_credits("ann", 1, idempotency_key="once")
                    assert (caught.value.busy, caught.value.retryable) == (True, True)
                    assert not (await store.charge_credits("ann", 1, idempotency_key="once")).replayed
        finally:
            await admin.execute("ALTER ROLE service_role RESET lock_timeout")
            await admin.close()
