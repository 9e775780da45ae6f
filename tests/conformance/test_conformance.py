"""Every check of the conformance kit on every store of ours.

`NotSupportedError` is an error here: our own stores implement the whole interface.
"""

from __future__ import annotations

import pytest

from ducto.testing.conformance import ALL_CHECKS, run_check
from ducto.testing.harness import Harness


@pytest.mark.parametrize("name", ALL_CHECKS)
async def test_store_conforms(harness: Harness, name: str) -> None:
    await run_check(ALL_CHECKS[name], harness)
