"""Keys that this process has just made are told apart from all others, once."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from ducto.arguments import check_key
from ducto.fresh_keys import FreshKey, is_fresh, new_key
from ducto.manager.core import key_or_new


def test_key_is_fresh_at_its_first_use_alone() -> None:
    key = new_key()
    check_key(key)
    assert [is_fresh(key) for _ in range(3)] == [True, False, False]
    assert new_key() != key


def test_keys_of_callers_are_never_fresh() -> None:
    assert not is_fresh("mine")
    assert key_or_new("mine") == "mine"
    assert type(key_or_new("mine")) is str
    assert is_fresh(None)
    assert is_fresh(key_or_new(None))


@pytest.mark.parametrize(
    "copied",
    [
        str,
        copy.copy,
        copy.deepcopy,
        lambda key: pickle.loads(pickle.dumps(key)),
        lambda key: json.loads(json.dumps(key)),
    ],
    ids=["str", "copy", "deepcopy", "pickle", "json"],
)
def test_copy_is_a_plain_key(copied: object) -> None:
    key = new_key()
    assert isinstance(key, FreshKey)
    other = copied(key)  # type: ignore[operator]
    assert type(other) is str
    assert other == key
    assert hash(other) == hash(key)
