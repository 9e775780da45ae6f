"""The store of `examples/custom_store.py` passes the conformance kit, and its books outlive it."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from ducto import CreditManager, UsageMetrics
from ducto.errors import StoreError
from ducto.testing.conformance import run_conformance
from tests.docs.markdown_files import ROOT


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("custom_store", ROOT / "examples/custom_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["custom_store"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_it_conforms_but_for_teams(example: ModuleType) -> None:
    report = await run_conformance(example.open_harness)
    assert report.ok, report.summary()
    assert report.unsupported
    assert all("create_team" in (one.message or "") for one in report.unsupported), report.summary()


async def test_a_restart_finds_every_row_as_it_was(example: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "books.sqlite"
    async with example.JournalStore(path) as store, CreditManager(store) as manager:
        await manager.setup()
        await manager.publish_pricing({"models": {"m": {"unit": "usd", "input": "1.5", "output": "2"}}})
        await manager.add_credits("alice", 90_000, "grant", expires_at=datetime.now(UTC) + timedelta(days=1))
        async with manager.meter("alice", estimate=500, metadata={"for": ["a", {"b": 1}]}) as call:
            call.record(UsageMetrics(model="m", input_tokens=10, output_tokens=7))
        held = await manager.reserve("alice", 200)
        refused = await store.reserve_credits("alice", 10**9, "call", idempotency_key="too much")
        rows = await manager.list_transactions("alice")
        standing = await manager.get_available("alice")
    async with example.JournalStore(path) as store, CreditManager(store) as manager:
        with pytest.raises(StoreError, match="setup"):
            await store.add_credits("alice", 1)
        await manager.setup()
        assert await manager.list_transactions("alice") == rows
        assert await manager.get_available("alice") == standing
        assert (await manager.verify()).ok
        await manager.deduct("alice", 150, reservation_id=held.reservation_id)
    assert refused.error == "insufficient_credits"


async def test_a_journal_that_cannot_be_written_stops_the_store(example: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "books.sqlite"
    async with example.JournalStore(path) as store:
        await store.setup()
        await store.add_credits("alice", 100, idempotency_key="first")
        with sqlite3.connect(path) as other:
            other.execute("drop table writes")
        other.close()
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.add_credits("alice", 100, idempotency_key="second")
