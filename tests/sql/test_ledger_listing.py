"""The rows of the whole book, page by page: each once, in the order of commits, on every store of ours."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import ArgumentError
from ducto.models import Transaction
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.testing.conformance.helpers import now
from ducto.testing.harness import Harness
from tests.conformance.conftest import STORES
from tests.conformance.sql_harness import migrated_database


async def ledger(
    store: CreditStore,
    after: str | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 1000,
) -> tuple[list[Transaction], str | None]:
    """All rows after a cursor, and the last cursor."""
    rows: list[Transaction] = []
    while True:
        page = await store.list_ledger(after, start=start, end=end, limit=limit)
        assert len(page.transactions) <= limit
        assert (page.next_cursor is None) == (not page.transactions)
        if not page.transactions:
            return rows, after
        rows += page.transactions
        after = page.next_cursor


async def some_rows(harness: Harness, name: str) -> list[Transaction]:
    """Rows of all kinds by several callers at once; as each account lists them."""
    store = harness.store
    ann, bob = f"{name}-ann", f"{name}-bob"
    await store.add_credits(ann, 1000, "purchase", idempotency_key="key")
    team = (await store.create_team("red", 500)).team_id or ""
    await store.add_team_member(team, ann)
    await asyncio.gather(
        *(store.charge_credits(ann, 1, model="m") for _ in range(5)),
        *(store.transfer_credits(ann, bob, 10) for _ in range(3)),
        *(store.deduct_team(team, ann, 2) for _ in range(3)),
    )
    await harness.advance(3600)
    await store.adjust_credits(bob, 5, direction="debit")
    listed = [
        await store.list_transactions(ann, limit=1000),
        await store.list_transactions(bob, limit=1000),
        await store.list_transactions(team_id=team, limit=1000),
    ]
    return [row for page in listed for row in page.transactions]


def by_account(row: Transaction) -> tuple[str, str, int]:
    return (row.team_id or "", "" if row.team_id else str(row.user_id), row.sequence)


@pytest.mark.parametrize("name", STORES)
async def test_every_row_is_listed_once_with_any_page_size_and_window(name: str) -> None:
    async with STORES[name]() as harness:
        store = harness.store
        _, before = await ledger(store)
        await harness.advance(7200)
        begun = await now(harness)
        _, before = await ledger(store, before)  # `now` may have written a row to learn the time.
        expected = sorted(await some_rows(harness, name), key=by_account)
        found, last = await ledger(store, before)
        assert sorted(found, key=by_account) == expected
        for limit in (1, 2, 3):
            assert await ledger(store, before, limit=limit) == (found, last)
        middle = found[len(found) // 2].created_at
        for start, end in ((None, middle), (middle, None), (begun, middle), (middle, middle)):
            within = [
                row for row in found if (not start or row.created_at >= start) and (not end or row.created_at < end)
            ]
            assert (await ledger(store, before, start=start, end=end, limit=3))[0] == within
        afresh, _ = await ledger(store, start=middle, limit=3)
        assert afresh == [row for row in found if row.created_at >= middle]
        for bad in ("no cursor", "1.x", ""):
            with pytest.raises(ArgumentError):
                await store.list_ledger(bad)
        with pytest.raises(ArgumentError):
            await store.list_ledger(start=middle, end=middle - timedelta(seconds=1))


async def test_a_late_commit_comes_after_what_was_listed() -> None:
    async with migrated_database("new") as database, PostgresStore(database.url) as store:
        late = await asyncpg.connect(database.superuser_url)
        try:
            async with late.transaction():
                item = json.dumps([{"user_id": "late", "amount": 5, "operation_type": "chat", "force": True}])
                await late.fetchval("SELECT public.ducto_charge($1)", item)
                await store.charge_credits("ann", 1, force=True)
                first, cursor = await ledger(store)
                assert first == [], "a running transaction may yet come before it"
        finally:
            await late.close()
        found, _ = await ledger(store, cursor)
        assert [row.user_id for row in found] == ["late", "ann"]
        assert (await ledger(store, start=datetime(2000, 1, 1, tzinfo=UTC)))[0] == found
