"""Which accounts are not read from Redis because it could not be told of a write."""

from __future__ import annotations

import pytest

from ducto.stores.redis.untold import UntoldWrites


class Seconds:
    """A clock that is never set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def untold(seconds: Seconds) -> UntoldWrites:
    return UntoldWrites(seconds=30.0, monotonic=seconds)


def test_account_is_avoided_until_redis_is_told_or_has_forgotten_by_itself(
    untold: UntoldWrites, seconds: Seconds
) -> None:
    assert untold.find("ann") is None
    untold.add("ann")
    untold.add("bob")
    found = untold.find("ann")
    assert found is not None
    untold.told("ann", found)
    assert untold.find("ann") is None
    assert untold.find("bob") is not None
    seconds.now += 32.0
    assert untold.find("bob") is None


def test_telling_of_an_earlier_write_does_not_clear_a_later_one(untold: UntoldWrites) -> None:
    untold.add("ann")
    earlier = untold.find("ann")
    assert earlier is not None
    untold.add("ann")
    untold.told("ann", earlier)
    assert untold.find("ann") is not None


def test_all_accounts_are_avoided_one_by_one(untold: UntoldWrites, seconds: Seconds) -> None:
    untold.add_all()
    found = untold.find("ann")
    assert found is not None
    untold.told("ann", found)
    assert untold.find("ann") is None
    assert untold.find("bob") is not None
    untold.add_all()  # Once more: what was told before that does not count.
    assert untold.find("ann") is not None
    seconds.now += 32.0
    assert untold.find("ann") is None


def test_too_many_accounts_are_all_accounts(untold: UntoldWrites, seconds: Seconds) -> None:
    untold.add("first", hold_seconds=15.0)
    for number in range(10_000):
        untold.add(f"user{number}")
    found = untold.find("nobody has written to it")
    assert found is not None
    assert found.held_until == seconds.now + 15.0
