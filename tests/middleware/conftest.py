from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ducto.testing.simulator import ProviderSimulator
from tests.middleware.support import Books, Caller, open_books


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    """Books whose end is checked: no hold left, and every invariant holds."""
    async with open_books() as opened:
        yield opened


@pytest.fixture
def simulator() -> ProviderSimulator:
    return ProviderSimulator()


@pytest.fixture
def caller(books: Books, simulator: ProviderSimulator) -> Caller:
    """alice, who calls the simulated provider through the middleware."""
    return Caller(books.door(simulator.app, drain_seconds=0.5))
