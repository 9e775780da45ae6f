"""What a figure was measured on: the machine, the versions, and how busy it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ducto.errors import ConfigError
from ducto.testing.servers.postgres import postgres_binaries
from ducto.testing.servers.postgrest import postgrest_binary
from ducto.testing.servers.redis import redis_binary

__all__ = ["Machine", "describe_machine", "load_average"]

#: Packages whose version a figure depends on.
_PACKAGES = (
    *("pydantic", "pydantic-core", "starlette", "httpx", "httpcore", "h11", "uvicorn", "httptools", "asyncpg"),
    *("redis", "hiredis", "genai-prices", "litellm", "tokencost"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run was made."""

    started_at: datetime
    commit: str
    machine: str
    cpu: str
    cores: int
    memory_mb: int
    kernel: str
    #: What was measured with, by name: Python, servers and packages.
    versions: dict[str, str]


def describe_machine() -> Machine:
    """This machine, now."""
    return Machine(
        started_at=datetime.now(UTC).replace(microsecond=0),
        commit=_commit(),
        machine=platform.machine(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        kernel=f"{platform.system()} {platform.release()}",
        versions={"Python": platform.python_version(), **_servers(), **_packages()},
    )


def load_average() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _commit() -> str:
    told = _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(Path(__file__).parent), "status", "--porcelain")
    return f"{told or 'unknown'}{' with changes' if changed else ''}"


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found is not None else platform.processor() or "unknown"


def _servers() -> dict[str, str]:
    versions = {}
    for name, binary in (("Postgres", _postgres), ("PostgREST", postgrest_binary), ("Redis", redis_binary)):
        try:
            told = _output(str(binary()), "--version")
        except ConfigError:
            continue
        found = re.search(r"\d+(?:\.\d+)+", told)
        versions[name] = found[0] if found is not None else "unknown"
    return versions


def _postgres() -> Path:
    return postgres_binaries("new") / "postgres"


def _packages() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
