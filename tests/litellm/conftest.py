from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.litellm.support import Account, Site, open_account, open_site

#: A subclass without a word of its own, and the choices that the environment's hook does not make.
OWN_HOOKS = """
import os

from ducto.manager import CreditManager
from ducto.middleware.litellm import DuctoHook
from ducto.stores.opening import open_store


class MyHook(DuctoHook):
    pass


hook = MyHook(
    lambda: CreditManager(open_store(os.environ["DUCTO_STORE"])),
    identity="team",
    price="response_cost",
    cache_hits="charge",
    unmetered="log",
)
"""


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A proxy with the hook that the environment configures."""
    with open_site("ducto.middleware.litellm.hook", {}, {}) as opened:
        yield opened


@pytest.fixture(scope="module")
def own_site() -> Iterator[Site]:
    """A proxy with a hook of its own module."""
    with open_site("own_hooks.hook", {"own_hooks.py": OWN_HOOKS}, {}) as opened:
        yield opened


@pytest.fixture
async def account(site: Site) -> AsyncIterator[Account]:
    site.simulator.reset()
    async with open_account(site) as opened:
        yield opened


@pytest.fixture
async def poor(site: Site) -> AsyncIterator[Account]:
    """An account without credits."""
    site.simulator.reset()
    async with open_account(site, credits=0) as opened:
        yield opened


@pytest.fixture
async def own_account(own_site: Site) -> AsyncIterator[Account]:
    """An account of the proxy with a hook of its own."""
    own_site.simulator.reset()
    async with open_account(own_site) as opened:
        yield opened
