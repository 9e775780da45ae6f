from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.middleware.support import Books, open_books


@pytest.fixture
async def books() -> AsyncIterator[Books]:
    """Books whose end is checked: no hold left, and every invariant holds."""
    async with open_books() as opened:
        yield opened
