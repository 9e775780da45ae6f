"""A failover to a replica that lags: what synchronous replication is for, and how a loss is found without it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from ducto.errors import StoreError
from ducto.migrate import migrate
from ducto.stores.postgres import PostgresStore
from tests.faults_matrix.clusters import Cluster, processes_of

START = 1_000


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with Cluster() as made:
        made.make()
        made.start(wal_level="replica", wal_keep_size="64MB")
        yield made


@pytest.fixture
def replica(primary: Cluster) -> Iterator[Cluster]:
    with Cluster() as made:
        made.follow(primary)
        made.start()
        yield made


async def books_on(primary: Cluster) -> str:
    url = await primary.new_database()
    assert (await migrate(url)).success
    async with PostgresStore(url) as store:
        await store.add_credits("alice", START)
    return url


async def caught_up(primary: Cluster, replica: Cluster) -> None:
    position = await primary.execute("SELECT pg_current_wal_lsn()::text")
    async with asyncio.timeout(20):
        while await replica.execute(f"SELECT (pg_last_wal_replay_lsn() >= '{position}')::text") != "true":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def hold_up(replica: Cluster) -> None:
    """Stop the process that receives from the primary: what is sent from now on is never written down."""
    (receiver,) = [pid for pid, name in processes_of(replica.process.pid).items() if "walreceiver" in name]
    os.kill(receiver, signal.SIGSTOP)


async def test_synchronous_replication_acknowledges_nothing_that_the_replica_lacks(
    primary: Cluster, replica: Cluster
) -> None:
    url = await books_on(primary)
    await caught_up(primary, replica)
    await primary.configure(synchronous_standby_names="follower", synchronous_commit="remote_write")
    try:
        async with PostgresStore(url, statement_timeout_seconds=0.3) as store:
            assert (await store.charge_credits("alice", 1, idempotency_key="with it")).ok
            hold_up(replica)
            # The second attempt of the same key finds the row of the first, and is not acknowledged either.
            for _ in range(2):
                with pytest.raises(StoreError) as caught:
                    await store.charge_credits("alice", 10, idempotency_key="without it")
                assert caught.value.retryable
    finally:
        await primary.configure(synchronous_standby_names="")


async def test_a_loss_by_failover_is_seen_by_sequences_that_went_back(primary: Cluster, replica: Cluster) -> None:
    url = await books_on(primary)
    async with PostgresStore(url) as store:
        assert (await store.charge_credits("alice", 1, idempotency_key="kept")).ok
        await caught_up(primary, replica)
        hold_up(replica)
        for number in range(20):
            assert (await store.charge_credits("alice", 1, idempotency_key=f"lost-{number}")).ok
        highest = (await store.list_transactions("alice", limit=1)).transactions[0].sequence
    primary.kill()
    replica.kill()
    replica.start()
    await replica.execute("SELECT pg_promote(wait => true)::text")
    async with PostgresStore(url.replace(str(primary.port), str(replica.port))) as store:
        # The books are sound, only older: no audit of the books alone can see what is not there any more.
        assert (await store.verify()).ok
        now = (await store.list_transactions("alice", limit=1)).transactions[0].sequence
        assert now == highest - 20
        # Whoever has kept the keys of what was acknowledged sends them again, and each books once.
        for key in ("kept", *(f"lost-{number}" for number in range(20))):
            assert (await store.charge_credits("alice", 1, idempotency_key=key)).replayed == (key == "kept")
        assert (await store.get_balance("alice")).balance == START - 21
        assert (await store.list_transactions("alice", limit=1)).transactions[0].sequence == highest
