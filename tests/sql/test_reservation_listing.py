"""Reservations of the whole book, page by page, on every store of ours; and that open ones are found by their index."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.models import Reservation
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.conformance.helpers import fund, hold, team_of
from tests.conformance.conftest import STORES
from tests.conformance.sql_harness import migrated_database


async def listed(store: CreditStore, user_id: str | None = None, **chosen: Any) -> list[Reservation]:
    found: list[Reservation] = []
    cursor: str | None = None
    while True:
        page = await store.list_reservations(user_id, cursor=cursor, **chosen)
        found += page.reservations
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("name", STORES)
async def test_pages_of_any_size_have_each_once_in_the_order_of_accounts(name: str) -> None:
    """Ids are compared byte by byte, so that the order is the same whatever the language of the server is."""
    async with STORES[name]() as harness:
        store = harness.store
        users = [f"{name}-{end}" for end in ("a", "B", "ä", "a b", "\U0001f600")]
        for user in users:
            await fund(store, 100, user_id=user)
        team = await team_of(store, *users[:2], credits=100)
        made = await asyncio.gather(*(hold(store, user, 1) for user in users for _ in range(3)))
        made += await asyncio.gather(*(hold(store, user, 1, team_id=team) for user in users[:2] for _ in range(3)))
        ended = await asyncio.gather(*(hold(store, user, 1) for user in users))
        for user, reservation_id in zip(users, ended, strict=True):
            await store.deduct_credits(user, reservation_id, 1)
        everything = [each for each in await listed(store, limit=1000) if each.user_id in users]
        assert {each.reservation_id for each in everything} == set(made)
        accounts = [(each.team_id is None, each.team_id or each.user_id) for each in everything]
        assert accounts == sorted(accounts)
        for limit in (1, 2, 7):
            assert [each for each in await listed(store, limit=limit) if each.user_id in users] == everything
        for user in users:
            own = [each for each in everything if each.user_id == user]
            assert await listed(store, user) == await listed(store, user, limit=2) == own
            (settled,) = await listed(store, user, states=["settled"], limit=1)
            assert (settled.state, settled.idempotency_key) == ("settled", None)


#: Ended reservations of many accounts and, among them, few open ones.
_FILL = """
INSERT INTO ducto.accounts (last_op_at, account_kind, account_id, tag)
SELECT now(), 'u', 'user' || i, ducto._tag('u', 'user' || i) FROM generate_series(1, 100) AS i;
INSERT INTO ducto.reservations (number, event, xid, amount, allowance_held, base_held, min_balance, max_settle,
    balance_after, available_after, created_at, expires_at, due_at, ended_at, ttl_seconds, grace_seconds, account_kind,
    account_id, state, overage, user_id, operation_type)
SELECT i, i, pg_current_xact_id(), 1, 0, 1, 0, 10, 0, 0, now(), now() + interval '10 min', now() + interval '11 min',
    CASE WHEN i % 500 > 0 THEN now() END, 600, 60, 'u', 'user' || (i / 500 % 100 + 1),
    CASE WHEN i % 500 = 0 THEN 'active' WHEN i = 3 THEN 'released' ELSE 'settled' END, 'debt',
    'user' || (i / 500 % 100 + 1), 'chat'
FROM generate_series(1, 30000) AS i;
"""

_READS = """
SELECT 'rows', seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
WHERE schemaname = 'ducto' AND relname = 'reservations'
UNION ALL
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'ducto' AND relname = 'reservations'
"""


@pytest.mark.parametrize("analyzed", [False, True])
async def test_open_ones_are_read_and_no_others(analyzed: bool) -> None:
    async with migrated_database("new") as database, PostgresStore(database.url) as store:
        connection = await asyncpg.connect(database.superuser_url)
        try:
            await connection.execute(_FILL)
            if analyzed:
                await connection.execute("ANALYZE ducto.reservations, ducto.accounts, ducto.members")

            async def reads(**chosen: Any) -> tuple[int, dict[str, int]]:
                await connection.execute("SELECT pg_stat_reset()")
                found = await listed(store, **chosen)
                await store.aclose()  # A session reports what it has read when it ends.
                for _ in range(100):
                    counts = dict(await connection.fetch(_READS))
                    if sum(counts.values()):
                        break
                    await asyncio.sleep(0.05)
                return len(found), counts

            open_ones, read = await reads(limit=20)
            assert open_ones == 60
            assert read["reservations_open"] > 0
            # Each page may read some accounts again that the one before had begun.
            assert read["rows"] < 200
            assert read["reservations_pkey"] < 200
        finally:
            await connection.close()
        async with PostgresStore(database.url) as other:
            assert len(await listed(other, user_id="user7")) == 1
            page = await other.list_reservations(states=["released"], limit=1)
            assert len(page.reservations) + (page.next_cursor is not None) >= 1, "a page ends before it has read all"
            assert [each.state for each in await listed(other, states=["released"])] == ["released"]
