"""Ten thousand hostile ids, keys, models and metadata: every store stores them as data or refuses them, alike.

Another seed: `DUCTO_HOSTILE_SEED=<seed> pytest tests/hostile`.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from random import Random
from typing import Any

import pytest

from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.supabase import HttpxSupabaseStore
from ducto.testing.servers import start_postgrest
from ducto.testing.servers.redis import redis_server
from tests.conformance.sql_harness import PATIENCE_SECONDS, migrated_database
from tests.hostile.calls import SLOTS, Call, answer_to, comparable
from tests.hostile.values import hostile_texts

SEED = int(os.environ.get("DUCTO_HOSTILE_SEED", "7"))
CALLS = 10_000
CALLERS = 256


@asynccontextmanager
async def open_store(name: str) -> AsyncIterator[CreditStore]:
    """A store with books of its own, on real servers."""
    async with AsyncExitStack() as stack:
        if name == "memory":
            yield await stack.enter_async_context(MemoryStore())
            return
        if name == "redis":
            prefix = f"hostile-{secrets.token_hex(4)}"
            yield await stack.enter_async_context(RedisCacheStore(MemoryStore(), redis_server().url, prefix=prefix))
            return
        database = await stack.enter_async_context(migrated_database("new", roles=name == "postgrest"))
        if name == "postgrest":
            server = stack.enter_context(start_postgrest(database))
            store: CreditStore = HttpxSupabaseStore(
                url=server.url,
                key=server.key(),
                rest_path="",
                acquire_timeout_seconds=PATIENCE_SECONDS,
                timeout_seconds=PATIENCE_SECONDS,
                max_connections=6,  # The pool of httpx looks through all of them for each call.
            )
        else:
            store = PostgresStore(database.url, acquire_timeout_seconds=PATIENCE_SECONDS)
        yield await stack.enter_async_context(store)


def calls(seed: int) -> list[Call]:
    random = Random(seed)
    return [Call.of(number, text, random) for number, text in enumerate(islice(hostile_texts(random), CALLS))]


async def answers_of(store: CreditStore, asked: list[Call]) -> list[dict[str, Any]]:
    team = (await store.create_team("crew")).team_id
    assert team is not None
    answers: list[dict[str, Any]] = [{}] * len(asked)
    waiting = iter(asked)

    async def caller() -> None:
        for call in waiting:
            answers[call.number] = await answer_to(store, call, team=team)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    found = await store.verify()
    assert found.ok, found.faults
    return answers


@pytest.fixture(scope="module")
def asked() -> list[Call]:
    return calls(SEED)


@pytest.fixture(scope="module")
def expected(asked: list[Call]) -> list[dict[str, Any]]:
    async def of_memory() -> list[dict[str, Any]]:
        async with open_store("memory") as memory:
            return await answers_of(memory, asked)

    return asyncio.run(of_memory())


@pytest.mark.parametrize("name", ["postgres", "postgrest", "redis"])
async def test_hostile_arguments_are_answered_as_memory_answers(
    name: str, asked: list[Call], expected: list[dict[str, Any]]
) -> None:
    async with open_store(name) as store:
        found = await answers_of(store, asked)
    for call, here, there in zip(asked, found, expected, strict=True):
        assert here == there, f"seed {SEED}, {call}"


def test_each_argument_is_both_accepted_and_refused(asked: list[Call], expected: list[dict[str, Any]]) -> None:
    """The comparison above is worth something only where both happen; and no answer is a failure of the store."""
    assert len({call.text for call in asked}) == CALLS
    told = Counter(
        (call.slot, answer["first"].get("error") is None) for call, answer in zip(asked, expected, strict=True)
    )
    # There is no such reservation, team, plan and so on, and nobody has credits to send.
    never = {"reservation", "transaction", "team", "member", "plan", "feature", "cursor", "receiver"}
    for slot in set(SLOTS):
        assert told[slot, False] > 20, slot
        assert told[slot, True] > 100 or slot in never, slot
    codes = {one.get("error") for answer in expected for one in answer.values()}
    assert "store_unavailable" not in codes
    assert {None, "invalid_argument", "reservation_not_found", "transaction_not_found", "team_not_found"} <= codes


def test_metadata_is_kept_as_it_came_and_read_by_no_rule(asked: list[Call], expected: list[dict[str, Any]]) -> None:
    kept = 0
    for call, told in zip(asked, expected, strict=True):
        if call.slot == "metadata" and told["first"].get("error") is None:
            kept += 1
            (row,) = told["rows"]["transactions"]
            assert row["metadata"] == comparable(json.loads(json.dumps(call.metadata)))
            assert (row["idempotency_key"], row["team_id"], row["model"]) == (f"key-{call.number}", None, None)
            assert (row["user_id"], told["balance"]["balance"]) == (f"user-{call.number}", -7)
    assert kept > 120


async def test_metadata_that_no_parser_would_read_again_is_refused() -> None:
    """Deeper nesting could be stored, and then made every listing of the account fail."""
    deep: list[object] = []
    for _ in range(62):
        deep = [deep]
    async with open_store("postgres") as store:
        kept = await store.charge_credits("alice", 1, "chat", {"deep": deep}, force=True)
        refused = await store.charge_credits("alice", 1, "chat", {"deep": [deep]}, force=True)
        assert (kept.ok, refused.error) == (True, "invalid_argument")
        (row,) = (await store.list_transactions("alice")).transactions
        assert json.loads(row.model_dump_json())["metadata"] == {"deep": deep}
