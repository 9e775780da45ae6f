from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import Books, open_books


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    """Books whose end is checked: no hold left, and every invariant holds."""
    async with open_books() as opened:
        yield opened


@pytest.fixture
def simulator() -> ProviderSimulator:
    return ProviderSimulator()


@pytest.fixture
async def provider(simulator: ProviderSimulator) -> AsyncIterator[str]:
    """The simulated provider on a real socket."""
    async with serve(simulator.app) as url:
        yield url
