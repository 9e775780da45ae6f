"""What the page about Redis repeats from the code is the code's, and what it says of Redis is so."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from ducto.errors import ConfigError
from ducto.middleware import RedisAnswers
from ducto.stores import opening
from ducto.stores.memory import MemoryStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.redis.counters import CacheCounters
from ducto.stores.redis.link import LinkCounters, RedisLink
from ducto.testing.servers.redis import start_redis
from tests.docs.markdown_files import ROOT, rows_of

PAGE = ROOT / "docs/redis.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(
    ("heading", "described", "undocumented"),
    [
        ("Options of RedisCacheStore", RedisCacheStore, {"self", "inner", "redis"}),
        ("Options of RedisAnswers", RedisAnswers, {"self", "redis"}),
        ("Options of RedisLink", RedisLink, {"self", "redis", "scripts"}),
    ],
)
def test_options_and_their_defaults(heading: str, described: type, undocumented: set[str]) -> None:
    listed = {_code(name)[0]: _code(default) for name, _, default in rows_of(PAGE, heading=heading)}
    parameters = inspect.signature(described).parameters
    assert set(listed) == set(parameters) - undocumented
    for name, default in listed.items():
        if default:  # Else it is told in words.
            assert ast.literal_eval(default[0]) == parameters[name].default, name


def test_counters_and_variables() -> None:
    for counters in (CacheCounters, LinkCounters):
        fields = [name for name in counters.__slots__ if not name.startswith("_")]
        assert fields
        assert [name for name in fields if f"`{name}`" not in TEXT] == []
    assert [name for name in opening.REDIS_VARIABLES if f"`{name}`" not in TEXT] == []


def test_urls_can_be_used() -> None:
    rows = rows_of(PAGE, heading="URLs")
    assert len(rows) >= 5
    for url, _ in rows:
        RedisLink(_code(url)[0])
    with pytest.raises(ConfigError):
        RedisLink("http://host")


async def test_the_rights_are_enough() -> None:
    told = " ".join(TEXT.split())
    rule = re.search(r"`ACL (SETUSER gateway on [^`]+)`", told)
    assert rule is not None
    with start_redis() as server:
        server.execute("ACL", *rule[1].split(), "-@dangerous")
        password = re.search(r">(\S+)", rule[1])
        assert password is not None
        link = RedisLink(server.url.replace("redis://", f"redis://gateway:{password[1]}@"), budget_seconds=2.0)
        store, inner = RedisCacheStore(MemoryStore(), link), MemoryStore()
        heard: list[str | None] = []
        async with store, inner:
            store.on_pricing_published(heard.append)
            await store.set_active_pricing({"models": {}})
            await store.add_credits("alice", 5, idempotency_key="once")
            assert (await store.add_credits("alice", 5, idempotency_key="once")).replayed
            assert (await store.get_balance("alice")).balance == 5
            assert (await store.get_user_plan("alice")).plan_id is None
            for _ in range(2):
                assert (await store.reserve_credits("alice", 50, "chat")).error == "insufficient_credits"
        await link.aclose()
        assert store.counters.fallbacks == link.counters.failures == 0
        assert (store.counters.replies, store.counters.refusals) == (1, 1)
        assert heard
