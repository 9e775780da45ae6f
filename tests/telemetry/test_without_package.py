"""Without OpenTelemetry, and with its API alone, everything works and nothing is traced."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
{blocked}
import ducto
from ducto.telemetry import JsonFormatter, instrument

async def main():
    async with ducto.MemoryStore() as store, ducto.CreditManager(store) as manager:
        remove = instrument(manager)
        await manager.add_credits("alice", 100, "grant")
        async with manager.meter("alice", estimate=9) as call:
            call.record(7)
        print((await manager.get_balance("alice")).balance, manager.events.listening)
        remove()

asyncio.run(main())
print(any(module for name, module in sys.modules.items() if name.startswith("opentelemetry.sdk")))
"""


def run(program: str) -> list[str]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    return finished.stdout.split()


def test_without_the_package_nothing_is_listened_to() -> None:
    blocked = 'sys.modules["opentelemetry"] = None'
    assert run(PROGRAM.format(blocked=blocked)) == ["93", "False", "False"]


def test_with_the_api_alone_it_is_listened_to_for_nothing() -> None:
    assert run(PROGRAM.format(blocked='sys.modules["opentelemetry.sdk"] = None')) == ["93", "True", "False"]


def test_importing_telemetry_and_the_gateway_loads_no_opentelemetry() -> None:
    program = (
        "import sys, ducto, ducto.telemetry, ducto.gateway, ducto.gateway.metrics; "
        "print(any(name.startswith(('opentelemetry', 'prometheus')) for name in sys.modules))"
    )
    assert run(program) == ["False"]


@pytest.mark.parametrize("missing", ["opentelemetry.sdk.metrics", "prometheus_client"])
def test_the_page_names_the_extra_that_is_missing(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from ducto import ConfigError, CreditManager, MemoryStore
from ducto.gateway.metrics import PrometheusMetrics
try:
    PrometheusMetrics(CreditManager(MemoryStore()))
except ConfigError as error:
    print("ducto[prometheus]" in str(error))
"""
    assert run(program) == ["True"]
