"""`PostgresStore` as a transport, on a real Postgres: batches, connections, repeats, errors, secrets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.errors import ConfigError, StoreError
from ducto.stores.postgres import PostgresStore
from tests.stores.proxy import CuttingProxy
from tests.stores.support import TransportDatabase, transport_database

BIG = 2**53 - 1


@pytest.fixture
async def db() -> AsyncIterator[TransportDatabase]:
    async with transport_database() as opened:
        yield opened


@pytest.fixture
async def store(db: TransportDatabase) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(db.url, lock_timeout_seconds=1.0) as opened:
        yield opened


async def test_concurrent_calls_travel_together_and_each_gets_its_own_answer(
    db: TransportDatabase, store: PostgresStore
) -> None:
    users = [f"user{number:03}" for number in range(200)]
    results = await asyncio.gather(*(store.charge_credits(user, BIG - n) for n, user in enumerate(users)))
    assert [(each.user_id, each.amount) for each in results] == [(user, BIG - n) for n, user in enumerate(users)]
    assert await db.booked() == users
    calls = await db.calls()
    assert len(calls) <= 8
    assert all(accounts == sorted(accounts) for _, _, accounts in calls)


async def test_a_lone_call_is_one_call(db: TransportDatabase, store: PostgresStore) -> None:
    assert (await store.charge_credits("ann", 5)).ok
    assert await db.calls() == [(1, False, ["ann"])]


async def test_one_bad_item_fails_alone_and_every_other_is_booked_once(
    db: TransportDatabase, store: PostgresStore
) -> None:
    calls = [store.charge_credits(f"u{n}", 1, "fail" if n == 7 else "charge") for n in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[7], StoreError)
    assert not answers[7].retryable
    assert "secret detail" not in str(answers[7])
    assert all(not isinstance(each, BaseException) and each.ok for n, each in enumerate(answers) if n != 7)
    assert len(await db.booked()) == 19


async def test_an_account_locked_elsewhere_does_not_delay_the_others(
    db: TransportDatabase, store: PostgresStore
) -> None:
    await store.charge_credits("locked", 1)
    async with db.admin.transaction():
        await db.admin.execute("SELECT FROM transport.accounts WHERE id = 'locked' FOR UPDATE")
        begun = time.monotonic()
        waiting = asyncio.ensure_future(store.charge_credits("locked", 2))
        others = await asyncio.gather(*(store.charge_credits(f"u{n}", 1) for n in range(20)))
        assert all(each.ok for each in others)
        assert time.monotonic() - begun < 0.8
        assert not waiting.done()
    assert (await waiting).ok


async def test_a_lock_that_is_not_had_in_time_is_busy(db: TransportDatabase, store: PostgresStore) -> None:
    await store.charge_credits("locked", 1)
    async with db.admin.transaction():
        await db.admin.execute("SELECT FROM transport.accounts WHERE id = 'locked' FOR UPDATE")
        with pytest.raises(StoreError) as caught:
            await store.charge_credits("locked", 2)
    assert (caught.value.busy, caught.value.retryable) == (True, True)


async def test_without_a_statement_cache_each_call_brings_its_lock_timeout(db: TransportDatabase) -> None:
    async with PostgresStore(db.url, lock_timeout_seconds=0.3, statement_cache=False) as store:
        await store.charge_credits("locked", 1)
        async with db.admin.transaction():
            await db.admin.execute("SELECT FROM transport.accounts WHERE id = 'locked' FOR UPDATE")
            with pytest.raises(StoreError) as caught:
                await store.charge_credits("locked", 2)
        assert caught.value.busy
        before = len(await db.sessions())
        store.on_pricing_published(print)()  # It has no session to listen with.
        assert len(await db.sessions()) == before


async def test_a_cancelled_caller_does_not_take_his_call_along(db: TransportDatabase, store: PostgresStore) -> None:
    sleeping = asyncio.ensure_future(store.charge_credits("ann", 1, "sleep", {"seconds": 0.3}))
    beside = asyncio.ensure_future(store.charge_credits("bob", 1))
    await asyncio.sleep(0.1)
    sleeping.cancel()
    assert (await beside).ok
    assert await db.booked() == ["ann", "bob"]


async def test_a_lost_connection_is_repeated_and_books_once(db: TransportDatabase, store: PostgresStore) -> None:
    """The second attempt has the key of the first, also where the caller gave none."""
    calls = [
        asyncio.ensure_future(store.charge_credits("ann", 1, "sleep", {"seconds": 0.3})),
        asyncio.ensure_future(store.deduct_credits("eve", "rsv_uZXZl.1", 1)),
    ]
    await asyncio.sleep(0.15)
    await db.terminate()
    results = await asyncio.gather(*calls)
    assert [each.ok for each in results] == [True, True]
    assert not results[0].replayed
    assert await db.booked() == ["ann", "eve"]


@pytest.mark.parametrize("sqlstate", ["40P01", "57P01"])
async def test_deadlocks_and_shutdowns_are_repeated(db: TransportDatabase, store: PostgresStore, sqlstate: str) -> None:
    found = await store.get_balance(f"once-{sqlstate}")
    assert (found.balance, found.lifetime_purchased) == (BIG, 2)
    with pytest.raises(StoreError) as caught:
        await store.get_balance(f"always-{sqlstate}")
    assert caught.value.retryable
    assert await db.attempts() == 2 + 5


@pytest.mark.parametrize(
    ("sqlstate", "retryable", "busy"),
    [("40001", False, False), ("55P03", True, True), ("57014", True, True), ("P0001", False, False)],
)
async def test_other_errors_are_told_and_not_repeated(
    db: TransportDatabase, store: PostgresStore, sqlstate: str, retryable: bool, busy: bool
) -> None:
    with pytest.raises(StoreError) as caught:
        await store.get_balance(f"always-{sqlstate}")
    assert (caught.value.retryable, caught.value.busy) == (retryable, busy)
    assert await db.attempts() == 1


async def test_reserves_and_reads_never_keep_a_settle_waiting(db: TransportDatabase) -> None:
    async with PostgresStore(db.url, pool_size=2, settle_pool_size=1) as store:
        readers = [asyncio.ensure_future(store.get_balance("sleepy")) for _ in range(2)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        assert (await store.deduct_credits("ann", "rsv_uYW5u.1", 1)).ok
        assert time.monotonic() - begun < 0.8
        with pytest.raises(StoreError, match="in use") as caught:
            await store.get_balance("ann")
        assert caught.value.retryable
        assert 0.9 < time.monotonic() - begun < 2.5
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_a_statement_that_takes_too_long_is_ended(db: TransportDatabase) -> None:
    async with PostgresStore(db.url, statement_timeout_seconds=0.3) as store:
        with pytest.raises(StoreError) as caught:
            await store.get_balance("sleepy")
        assert caught.value.retryable


async def test_a_reply_that_is_cut_off_is_asked_for_again(db: TransportDatabase) -> None:
    """The call was committed; its answer never came."""
    async with CuttingProxy.to(db.database.server.port) as proxy:
        url = db.url.replace(str(db.database.server.port), str(proxy.port))
        async with PostgresStore(url) as store:
            await store.charge_credits("ann", 1)
            proxy.cut_next_reply()
            assert (await store.charge_credits("bob", 2, idempotency_key="k")).replayed
            proxy.cut_next_reply()
            # Under a key of the store's own, the repetition is the store's affair: this is the caller's first answer.
            assert not (await store.charge_credits("eve", 3)).replayed
    assert await db.booked() == ["ann", "bob", "eve"]


async def test_missing_functions_say_what_to_run(store: PostgresStore) -> None:
    with pytest.raises(StoreError, match="ducto migrate") as caught:
        await store.check_allowance("ann")
    assert not caught.value.retryable


async def test_a_pool_that_is_handed_in_is_shared_and_not_closed(db: TransportDatabase) -> None:
    async with asyncpg.create_pool(db.url, min_size=0, max_size=8) as pool:
        async with PostgresStore(pool) as store:
            results = await asyncio.gather(*(store.charge_credits(f"u{n}", 1) for n in range(30)))
            assert all(each.ok for each in results)
        assert await pool.fetchval("SELECT 1") == 1
        with pytest.raises(ConfigError):
            PostgresStore(pool, settle_pool_size=8)


async def test_published_pricing_is_heard_of_also_after_a_lost_connection(
    db: TransportDatabase, store: PostgresStore
) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    stop = store.on_pricing_published(heard.put_nowait)
    async with asyncio.timeout(10):
        assert await heard.get() is None  # It listens from now on; what was before may have been missed.
        await db.admin.execute("SELECT pg_notify('ducto_pricing', '7')")
        assert await heard.get() == "7"
        await db.terminate()
        assert await heard.get() is None
        await db.admin.execute("SELECT pg_notify('ducto_pricing', '8')")
        assert await heard.get() == "8"
        stop()
        while await db.sessions():  # noqa: ASYNC110 - nobody hears any more, so nobody listens
            await asyncio.sleep(0.05)


def test_a_store_belongs_to_one_loop(request: pytest.FixtureRequest) -> None:
    async def opened() -> PostgresStore:
        async with transport_database() as db:
            store = PostgresStore(db.url)
            await store.charge_credits("ann", 1)
            await store._connections.aclose(timeout_seconds=1)
            return store

    store = asyncio.run(opened())

    async def elsewhere() -> None:
        with pytest.raises(ConfigError, match="another event loop"):
            await store.get_balance("ann")

    asyncio.run(elsewhere())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:S3cret-canary@127.0.0.1:1/none",
        "postgresql://ann:S3cret-canary@127.0.0.1:notaport/none",
        "mysql://ann:S3cret-canary@127.0.0.1/none",
        "postgresql://ann:S3cret-canary@{host}/no_such_database",
    ],
)
async def test_the_url_is_in_no_message_repr_or_log(
    url: str, db: TransportDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = db.database.server.url.rpartition("@")[2].partition("/")[0]
    async with PostgresStore(url.format(host=address)) as store:
        assert "canary" not in repr(store)
        with pytest.raises((StoreError, ConfigError)) as caught:
            await store.charge_credits("ann", 1)
        with pytest.raises((StoreError, ConfigError)) as at_setup:
            await store.setup()
    for error in (caught.value, at_setup.value):
        chain: list[BaseException | None] = [
            error,
            error.__cause__,
            None if error.__suppress_context__ else error.__context__,
        ]
        assert not any("canary" in str(each) for each in chain)
    assert "canary" not in caplog.text
