"""`HttpxSupabaseStore` as a transport, on a real PostgREST: batches, the table of errors, keys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ducto.errors import ConfigError, StoreError
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import PostgrestServer, mint_jwt, start_postgrest
from ducto.testing.servers.databases import create_supabase_roles
from ducto.testing.serving import serve
from tests.stores.proxy import CuttingProxy
from tests.stores.support import TransportDatabase, transport_database

BIG = 2**53 - 1

GRANTS = """
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO service_role;
GRANT USAGE ON SCHEMA transport TO service_role;
GRANT ALL ON ALL TABLES IN SCHEMA transport TO service_role;
GRANT ALL ON ALL SEQUENCES IN SCHEMA transport TO service_role;
"""


@pytest.fixture
async def db() -> AsyncIterator[TransportDatabase]:
    async with transport_database() as opened:
        await create_supabase_roles(opened.database.server)
        await opened.admin.execute(GRANTS)
        yield opened


@pytest.fixture
def postgrest(db: TransportDatabase) -> Iterator[PostgrestServer]:
    with start_postgrest(db.database) as server:
        yield server


@pytest.fixture
async def store(postgrest: PostgrestServer) -> AsyncIterator[HttpxSupabaseStore]:
    async with HttpxSupabaseStore(url=postgrest.url, key=postgrest.key(), rest_path="") as opened:
        yield opened


async def test_concurrent_calls_travel_together_and_integers_stay_exact(
    db: TransportDatabase, store: HttpxSupabaseStore
) -> None:
    users = [f"user{number:03}" for number in range(200)]
    results = await asyncio.gather(*(store.charge_credits(user, BIG - n) for n, user in enumerate(users)))
    assert [(each.user_id, each.amount) for each in results] == [(user, BIG - n) for n, user in enumerate(users)]
    assert await db.booked() == users
    assert len(await db.calls()) <= 8
    assert (await store.get_balance("ann")).balance == BIG


async def test_one_bad_item_fails_alone(db: TransportDatabase, store: HttpxSupabaseStore) -> None:
    calls = [store.charge_credits(f"u{n}", 1, "fail" if n == 7 else "charge") for n in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[7], StoreError)
    assert "secret detail" not in str(answers[7])
    assert len(await db.booked()) == 19


@pytest.mark.parametrize("sqlstate", ["40P01", "57P01"])
async def test_deadlocks_and_shutdowns_are_repeated(
    db: TransportDatabase, store: HttpxSupabaseStore, sqlstate: str
) -> None:
    assert (await store.get_balance(f"once-{sqlstate}")).lifetime_purchased == 2


@pytest.mark.parametrize(
    ("sqlstate", "retryable", "busy"), [("55P03", True, True), ("57014", True, True), ("P0001", False, False)]
)
async def test_other_errors_are_told_and_not_repeated(
    db: TransportDatabase, store: HttpxSupabaseStore, sqlstate: str, retryable: bool, busy: bool
) -> None:
    with pytest.raises(StoreError) as caught:
        await store.get_balance(f"always-{sqlstate}")
    assert (caught.value.retryable, caught.value.busy) == (retryable, busy)
    assert await db.attempts() == 1


async def test_lost_connections_of_postgrest_are_repeated_and_book_once(
    db: TransportDatabase, store: HttpxSupabaseStore
) -> None:
    """The answer was 500 or 503 after the call may have been carried out."""
    call = asyncio.ensure_future(store.charge_credits("ann", 1, "sleep", {"seconds": 0.3}))
    await asyncio.sleep(0.15)
    await db.terminate()
    assert (await call).ok
    assert await db.booked() == ["ann"]


async def test_a_reply_that_is_cut_off_is_asked_for_again(db: TransportDatabase, postgrest: PostgrestServer) -> None:
    async with CuttingProxy.to(urlsplit(postgrest.url).port or 0) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with HttpxSupabaseStore(url=url, key=postgrest.key(), rest_path="") as store:
            await store.charge_credits("ann", 1)
            proxy.cut_next_reply()
            assert (await store.charge_credits("bob", 2, idempotency_key="k")).replayed
    assert await db.booked() == ["ann", "bob"]


async def test_a_client_that_gives_up_asks_again_with_the_same_key(
    db: TransportDatabase, postgrest: PostgrestServer
) -> None:
    """The query runs on after the timeout; the repetition waits for its lock and is told that it was a repetition."""
    async with HttpxSupabaseStore(url=postgrest.url, key=postgrest.key(), rest_path="", timeout_seconds=0.3) as store:
        result = await store.charge_credits("ann", 1, "sleep", {"seconds": 0.5}, idempotency_key="k")
    assert result.ok
    assert await db.booked() == ["ann"]


async def test_reads_never_keep_a_settle_waiting(db: TransportDatabase, postgrest: PostgrestServer) -> None:
    async with HttpxSupabaseStore(
        url=postgrest.url, key=postgrest.key(), rest_path="", max_connections=4, timeout_seconds=20
    ) as store:
        readers = [asyncio.ensure_future(store.get_balance("sleepy")) for _ in range(2)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        assert (await store.deduct_credits("ann", "rsv_uYW5u.1", 1)).ok
        assert time.monotonic() - begun < 0.8
        with pytest.raises(StoreError, match="in use") as caught:
            await store.get_balance("ann")
        assert caught.value.retryable
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_missing_functions_say_what_to_run(store: HttpxSupabaseStore) -> None:
    with pytest.raises(StoreError, match=r"ducto migrate.*NOTIFY pgrst") as caught:
        await store.check_allowance("ann")
    assert caught.value.retryable


async def test_nobody_listening_is_told_at_once() -> None:
    async with HttpxSupabaseStore(url="http://127.0.0.1:1", key=mint_jwt("s" * 32, "service_role")) as store:
        begun = time.monotonic()
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await store.get_balance("ann")
    assert caught.value.retryable
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "key",
    [
        mint_jwt("x" * 32, "anon"),
        mint_jwt("x" * 32, "authenticated"),
        "sb_publishable_canary",
        "",
        "two lines\ncanary",
        None,
    ],
)
def test_a_public_or_malformed_key_is_refused_in_plain_words(key: Any) -> None:
    with pytest.raises(ConfigError, match="service_role") as caught:
        HttpxSupabaseStore(url="https://x.supabase.co", key=key)
    assert not key or key not in str(caught.value)


async def test_a_wrong_or_expired_key_is_explained(db: TransportDatabase, postgrest: PostgrestServer) -> None:
    expired = mint_jwt(postgrest.jwt_secret, "service_role", lifetime_seconds=-60)
    for key in (mint_jwt("y" * 32, "service_role"), expired):
        async with HttpxSupabaseStore(url=postgrest.url, key=key, rest_path="") as store:
            with pytest.raises(StoreError, match="must be the service_role key") as caught:
                await store.charge_credits("ann", 1)
        assert not caught.value.retryable
    assert await db.booked() == []


async def test_the_key_is_in_no_repr_message_or_log(
    postgrest: PostgrestServer, store: HttpxSupabaseStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = store._headers["apikey"]
    messages = [repr(store)]
    await store.charge_credits("ann", 1)
    for call in (store.check_allowance("ann"), store.get_balance("always-P0001")):
        with pytest.raises(StoreError) as caught:
            await call
        messages.append(str(caught.value))
    postgrest.process.stop()
    with pytest.raises(StoreError) as caught:
        await store.get_balance("ann")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    for text in (*messages, str(caught.value), caplog.text):
        assert key not in text


@pytest.mark.parametrize("url", ["x.supabase.co", "ftp://x", "https://u:canary@x.supabase.co", "https://x?key=canary"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpxSupabaseStore(url=url, key=mint_jwt("x" * 32, "service_role"))
    assert "canary" not in str(caught.value)


async def test_setup_needs_the_database() -> None:
    async with HttpxSupabaseStore(url="http://127.0.0.1:1", key=mint_jwt("s" * 32, "service_role")) as store:
        with pytest.raises(ConfigError, match="database"):
            await store.setup()


@asynccontextmanager
async def gateway(answers: list[tuple[int, dict[str, str], bytes]]) -> AsyncIterator[tuple[str, list[float]]]:
    """An HTTP gateway, as stands before PostgREST at Supabase: it answers in turn, and notes when it was asked."""
    asked: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        asked.append(time.monotonic())
        status, headers, body = answers.pop(0)
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async with serve(app) as url:
        yield url, asked


GOOD = (200, {}, b'{"user_id": "ann", "balance": 9007199254740991}')


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"Retry-After": "1"}, b'{"code": "PGRST000", "message": "connection"}'),
        (502, {"Retry-After": "1"}, b"<html>bad gateway</html>"),
        (520, {"Retry-After": "1"}, b""),
    ],
)
async def test_failures_of_a_gateway_are_repeated_when_it_says_so(answer: tuple[int, dict[str, str], bytes]) -> None:
    async with gateway([answer, GOOD]) as (url, asked), HttpxSupabaseStore(url=url, key="opaque-key") as store:
        assert (await store.get_balance("ann")).balance == BIG
    assert asked[1] - asked[0] >= 0.99


async def test_what_asks_for_too_long_a_pause_is_raised_with_it() -> None:
    answers = [(503, {"Retry-After": "60"}, b"")]
    async with gateway(answers) as (url, asked), HttpxSupabaseStore(url=url, key="opaque-key") as store:
        with pytest.raises(StoreError) as caught:
            await store.get_balance("ann")
    assert (caught.value.retry_after_seconds, len(asked)) == (60.0, 1)


@pytest.mark.parametrize("status", [400, 404, 409, 413])
async def test_refusals_of_a_gateway_are_not_repeated(status: int) -> None:
    answers = [(status, {}, b"no")]
    async with gateway(answers) as (url, asked), HttpxSupabaseStore(url=url, key="opaque-key") as store:
        with pytest.raises(StoreError) as caught:
            await store.get_balance("ann")
    assert (caught.value.retryable, len(asked)) == (False, 1)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"balance": "much"}', b"<html>", b'{"error": "new_code"}'])
async def test_an_answer_that_makes_no_sense_is_an_error_and_never_a_result(body: bytes) -> None:
    async with gateway([(200, {}, body)] * 2) as (url, _), HttpxSupabaseStore(url=url, key="opaque-key") as store:
        with pytest.raises(StoreError):
            await store.get_balance("ann")
        with pytest.raises(StoreError):
            await store.reserve_credits("ann", 1, "chat")


async def test_a_client_that_is_handed_in_is_not_closed(postgrest: PostgrestServer) -> None:
    async with httpx.AsyncClient() as client:
        async with HttpxSupabaseStore(url=postgrest.url, key=postgrest.key(), rest_path="", client=client) as store:
            await store.ping()
        assert not client.is_closed
