"""A forwarding store forwards: every method of the interface, with every argument, and what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from ducto.stores.base import CreditStore
from ducto.stores.forwarding import ForwardingStore
from ducto.stores.memory import MemoryStore

#: What belongs to the object itself, and not to the store behind it.
OWN = {"aclose"}


def _methods() -> list[str]:
    public = inspect.getmembers(CreditStore, inspect.isfunction)
    return sorted(name for name, _ in public if not name.startswith("_") and name not in OWN)


@pytest.mark.parametrize("name", _methods())
def test_every_method_is_there_with_the_same_signature(name: str) -> None:
    forwarded = vars(ForwardingStore).get(name)
    assert forwarded is not None, f"ForwardingStore falls back to the default of {name}."
    assert inspect.signature(forwarded) == inspect.signature(getattr(CreditStore, name))
    assert inspect.iscoroutinefunction(forwarded) == inspect.iscoroutinefunction(getattr(CreditStore, name))


def _bound(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(inspect.signature(method).bind(None, *args, **kwargs).arguments)


@pytest.mark.parametrize("name", _methods())
async def test_every_argument_arrives_and_the_answer_comes_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens in on a real store: what a method is called with, not what it does with it."""
    inner = MemoryStore()
    method = getattr(CreditStore, name)
    arrived: list[dict[str, Any]] = []
    answer = object()

    def heard(*args: Any, **kwargs: Any) -> object:
        arrived.append(_bound(method, args, kwargs))
        return answer

    async def heard_later(*args: Any, **kwargs: Any) -> object:
        return heard(*args, **kwargs)

    later = inspect.iscoroutinefunction(method)
    monkeypatch.setattr(inner, name, heard_later if later else heard)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    given = {parameter.name: object() for parameter in parameters}
    positional = [given[each.name] for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    keywords = {each.name: given[each.name] for each in parameters if each.kind is each.KEYWORD_ONLY}
    store = ForwardingStore(inner)
    got = getattr(store, name)(*positional, **keywords)
    if later:
        got = await got
    says_nothing = inspect.signature(method).return_annotation == "None"
    assert got is (None if says_nothing else answer)
    assert {key: value for key, value in arrived[0].items() if key != "self"} == given


@pytest.mark.parametrize("name", _methods())
async def test_defaults_are_those_of_the_interface(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = MemoryStore()
    method = getattr(CreditStore, name)
    arrived: list[dict[str, Any]] = []

    def heard(*args: Any, **kwargs: Any) -> None:
        arrived.append(_bound(method, args, kwargs))

    async def heard_later(*args: Any, **kwargs: Any) -> None:
        heard(*args, **kwargs)

    later = inspect.iscoroutinefunction(method)
    monkeypatch.setattr(inner, name, heard_later if later else heard)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    needed = {each.name: object() for each in parameters if each.default is each.empty}
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    got = getattr(ForwardingStore(inner), name)(**needed)
    if later:
        await got
    assert {key: value for key, value in arrived[0].items() if key != "self"} == needed | defaults


async def test_it_is_a_store_in_front_of_a_store() -> None:
    inner = MemoryStore()
    async with ForwardingStore(inner) as store:
        assert store.inner is inner
        added = await store.add_credits("alice", 100, idempotency_key="first")
        again = await store.add_credits("alice", 100, idempotency_key="first")
        assert again.replayed
        assert again.transaction_id == added.transaction_id
        held = await store.reserve_credits("alice", 30, "chat")
        assert held.reservation_id is not None
        await store.deduct_credits("alice", held.reservation_id, 20)
        assert (await store.get_balance("alice")).balance == 80
        assert (await inner.get_balance("alice")).balance == 80


@pytest.mark.parametrize("owns_inner", [False, True])
async def test_who_opens_closes(owns_inner: bool) -> None:
    closed: list[str] = []

    class Watched(MemoryStore):
        async def aclose(self) -> None:
            closed.append("inner")
            await super().aclose()

    await ForwardingStore(Watched(), owns_inner=owns_inner).aclose()
    assert closed == (["inner"] if owns_inner else [])
