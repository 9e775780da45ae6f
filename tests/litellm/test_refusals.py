"""What the proxy refuses, in whose words, and what a client can send in vain."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto.testing.simulator import Fault
from tests.litellm.support import CHAT, Account, Site, chat_body, open_account, scripted
from tests.litellm.test_calls import ROUTES, STREAMS

GENERATE = "/v1beta/models/m:generateContent"


@pytest.mark.parametrize("path", [path for path in ROUTES if path not in ("/v1/messages", GENERATE)])
async def test_without_credits_nothing_reaches_the_provider(poor: Account, path: str) -> None:
    for body in (ROUTES[path], STREAMS.get(path, ROUTES[path])):
        answer = await poor.post(path, body)
        assert answer.status_code == 402
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert error["code"] == "insufficient_credits"
        assert error["available"] == 0
    assert poor.site.simulator.requests == []
    assert (await poor.store.get_available(poor.user)).held == 0


@pytest.mark.parametrize("body", [ROUTES["/v1/messages"], STREAMS["/v1/messages"]])
async def test_anthropics_route_refuses_in_its_own_words(poor: Account, body: dict[str, Any]) -> None:
    answer = await poor.post("/v1/messages", body)
    assert answer.status_code == 402
    assert answer.json()["type"] == "error"
    error = answer.json()["error"]
    assert error["type"] == "billing_error"
    assert error["code"] == "insufficient_credits"
    assert poor.site.simulator.requests == []


async def test_too_many_calls_at_once_are_told_to_come_back(account: Account) -> None:
    await account.manager.set_user_plan(account.user, "one-at-a-time")
    scripted(account, Fault(chunks=10, chunk_delay_seconds=0.1))
    async with account.http.stream("POST", CHAT, json=chat_body(stream=True)) as running:
        refused = await account.chat()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "concurrency_limit"
        assert refused.headers["retry-after"] == "1"
        await running.aread()
    assert await account.spent() == account.cost()


async def test_without_the_books_nothing_reaches_the_provider(account: Account) -> None:
    """The proxy fails closed while its store does not answer, and a charge that has to wait is booked after all."""
    stream = account.http.stream("POST", CHAT, json=chat_body(stream=True))
    scripted(account, Fault(chunk_delay_seconds=0.1))
    connection = await asyncpg.connect(account.site.database_url)
    try:
        async with stream as running:
            async with connection.transaction():
                await connection.execute("lock table ducto.accounts in access exclusive mode")
                refused = await account.chat()
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "busy"
                assert int(refused.headers["retry-after"]) >= 1
                lines = [line async for line in running.aiter_lines()]
            assert "word8" in "".join(lines)
    finally:
        await connection.close()
    assert len(account.site.simulator.requests) == 1
    assert await account.spent() == account.cost()


async def test_model_without_a_price_is_refused(account: Account) -> None:
    for model in ("nobody-knows", "no-such-model"):
        answer = await account.chat(model=model)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "price_unknown"
    assert account.site.simulator.requests == []
    assert await account.spent(rows=0) == 0


async def test_fallback_without_a_price_is_refused_where_a_client_names_it(account: Account) -> None:
    """It would be charged at the price of the model that was asked for."""
    answer = await account.chat(fallbacks=["backup", "nobody-knows"])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "price_unknown"
    assert account.site.simulator.requests == []


async def test_model_that_nobody_serves_costs_nothing(account: Account) -> None:
    assert (await account.chat(model="not-served")).status_code == 400
    assert await account.spent(rows=0) == 0


async def test_wrong_key_costs_nobody_anything(account: Account) -> None:
    answer = await account.chat(headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401
    assert await account.spent(rows=0) == 0


async def test_key_without_a_user_is_nobody(account: Account) -> None:
    answer = await account.chat(headers={"authorization": "Bearer sk-"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"


async def test_request_that_cannot_be_bounded_is_refused(account: Account) -> None:
    answer = await account.chat(n=0)
    assert answer.status_code == 400
    assert account.site.simulator.requests == []
    assert await account.spent(rows=0) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("extra_body", {"model": "gpt-5-pro"}),
        ("extra_body", {"max_tokens": 50_000}),
        ("extra_body", {"n": 10}),
        ("additional_drop_params", ["max_tokens"]),
        ("fallbacks", [{"model": "backup", "max_tokens": 50_000}]),
        ("context_window_fallbacks", [{"m": ["backup"]}]),
    ],
)
async def test_client_cannot_change_the_call_behind_the_reservation(account: Account, field: str, value: Any) -> None:
    """LiteLLM would do all of these."""
    answer = await account.chat(**{field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert account.site.simulator.requests == []
    assert await account.spent(rows=0) == 0


async def test_what_cannot_be_metered_is_refused(account: Account) -> None:
    answer = await account.post("/v1/images/generations", {"model": "m", "prompt": "a fish"})
    assert answer.status_code == 404
    assert "cannot be metered" in answer.json()["error"]["message"]
    passed = await account.post("/anthropic/v1/complete", {"model": "claude-sonnet-4-5", "prompt": "Once"})
    assert passed.status_code == 404
    assert passed.json()["error"]["code"] == "unmetered_route"
    assert account.site.simulator.requests == []


async def test_what_no_model_works_for_is_let_through(account: Account) -> None:
    answer = await account.post("/v1/moderations", {"model": "m", "input": "a fish"})
    assert "unmetered_route" not in answer.text
    assert await account.spent(rows=0) == 0


async def test_an_id_that_the_client_chose_is_no_key(account: Account) -> None:
    """LiteLLM takes the id of a call from this header, so a client could send the same one again."""
    for _ in range(2):
        await account.chat(headers={"x-litellm-call-id": "the-same", "idempotency-key": "the-same"})
    assert await account.spent(rows=2) > 0


async def test_what_a_client_puts_in_the_place_of_our_mark_means_nothing(account: Account, site: Site) -> None:
    scripted(account, Fault(delay_seconds=2.0))
    running = asyncio.create_task(account.chat())
    for _ in range(100):  # until it has reached the provider
        if site.simulator.requests:
            break
        await asyncio.sleep(0.05)
    # Ids of reservations are not secret.
    held = f"rsv_u{base64.urlsafe_b64encode(account.user.encode()).decode().rstrip('=')}.1"
    forged: dict[str, Any] = {"ducto": {"call": held}, "user_api_key_hash": f"hash-of-sk-{account.user}"}
    marks = {"metadata": forged, "litellm_metadata": forged, **forged}
    async with open_account(site) as mallory:
        # One that is refused, one that fails, and ones that succeed: none may end the running call.
        await asyncio.gather(
            account.chat(model="nobody-knows", **marks),
            account.chat(model="not-served", **marks),
            mallory.chat(**marks),
            mallory.chat(model="not-served", **marks),
            mallory.post("/anthropic/v1/messages", {**ROUTES["/anthropic/v1/messages"], **marks}),
        )
        assert (await account.store.get_reservation(account.user, held)).state == "active"
        assert await mallory.spent(rows=2) > 0
    assert (await running).status_code == 200
    first = site.simulator.requests[0].reply
    assert first is not None
    assert await account.spent() == first.input_tokens + 2 * first.output_tokens
