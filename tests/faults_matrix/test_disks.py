"""A database whose disk fails or is full: nothing is acknowledged that was not kept, and nothing is booked twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from ducto.errors import StoreError
from ducto.migrate import migrate
from ducto.models import DeductionResult
from ducto.stores.postgres import PostgresStore
from tests.faults_matrix.clusters import Cluster

START = 1_000_000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as made:
        made.make()
        yield made


async def books_in(cluster: Cluster) -> str:
    """The URL of books in which alice has credits."""
    url = await cluster.new_database()
    assert (await migrate(url)).success
    async with PostgresStore(url) as store:
        await store.add_credits("alice", START)
    return url


async def attempt(store: PostgresStore, key: str, **more: object) -> DeductionResult | StoreError:
    try:
        return await store.charge_credits("alice", 1, "chat", more or None, idempotency_key=key)
    except StoreError as error:
        return error


async def test_a_disk_that_cannot_be_written_durably_is_never_reported_as_success(cluster: Cluster) -> None:
    cluster.start(bad_disk="io-error")
    url = await books_in(cluster)
    async with PostgresStore(url) as store:
        assert (await store.charge_credits("alice", 1, idempotency_key="before")).ok
        await cluster.configure(fsync="on")
        async with asyncio.timeout(60):
            failed = await asyncio.gather(*(attempt(store, f"key-{number}") for number in range(20)))
    assert all(isinstance(one, StoreError) and one.retryable for one in failed), failed
    assert "could not fsync" in cluster.log() or "could not fdatasync" in cluster.log()
    # With a new disk, the same keys find what was written in spite of all, or book it now: once.
    cluster.kill()
    cluster.write_settings(fsync="off")
    cluster.start()
    async with PostgresStore(url) as store:
        again = [await attempt(store, f"key-{number}") for number in range(20)]
        assert all(isinstance(one, DeductionResult) and one.ok for one in again), again
        assert (await store.get_balance("alice")).balance == START - 21
        assert (await store.verify()).ok


async def test_on_a_full_disk_charges_fail_and_come_back_with_space(cluster: Cluster) -> None:
    cluster.start(bad_disk="full")
    url = await books_in(cluster)
    noise = random.Random(1)
    answers: list[DeductionResult | StoreError] = []
    async with PostgresStore(url) as store:
        while len(answers) < 400 and not any(isinstance(one, StoreError) for one in answers[-8:]):
            notes = [noise.randbytes(7_000).hex() for _ in range(8)]
            first = len(answers)
            asked = (attempt(store, f"key-{first + number}", note=note) for number, note in enumerate(notes))
            answers += await asyncio.gather(*asked)
        assert (await store.get_balance("alice")).balance == START - sum(
            isinstance(one, DeductionResult) for one in answers
        )
    refused = [one for one in answers if isinstance(one, StoreError)]
    assert 0 < len(refused) < len(answers)
    assert all(one.retryable and "53100" in str(one) for one in refused), refused
    cluster.kill()
    cluster.start()
    async with PostgresStore(url) as store:
        for number in range(len(answers)):
            assert isinstance(await attempt(store, f"key-{number}"), DeductionResult)
        assert (await store.get_balance("alice")).balance == START - len(answers)
        assert (await store.verify()).ok
