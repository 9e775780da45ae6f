"""Environments that can run tests of ours with other releases of a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ducto.testing.servers import environments

__all__ = ["python_with"]

#: What ducto and its tests need in any case.
_ALWAYS = (
    "httpx>=0.27,<1",
    "pydantic>=2.9,<3",
    "starlette>=0.41,<2",
    "uvicorn>=0.32",
    "pytest>=8.3",
    "pytest-asyncio>=1.0",
)


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment that can run tests of ours with `requirements`."""
    return environments.python_with(name, (*_ALWAYS, *requirements))
