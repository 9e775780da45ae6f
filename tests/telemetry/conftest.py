from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.telemetry.support import Telemetry


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    opened = Telemetry()
    yield opened
    opened.shutdown()
