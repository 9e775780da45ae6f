"""A LiteLLM proxy as a child process, in a virtual environment of its own: its pins clash with those of others."""

from __future__ import annotations

import functools
import json
import os
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ducto
from ducto.errors import ConfigError
from ducto.testing.servers.environments import python_with
from ducto.testing.servers.processes import ChildProcess, free_port, remove_folder

__all__ = ["LiteLLMProxy", "litellm_python", "start_litellm"]

_VERSION = "1.106.2"
#: The proxy, and what ducto needs beside it to reach its store.
_REQUIREMENTS = (f"litellm[proxy]=={_VERSION}", "asyncpg>=0.30", "httpx>=0.27,<1", "pydantic>=2.9,<3", "starlette")
_START_SECONDS = 90.0
_PYTHON_VARIABLE = "DUCTO_TEST_LITELLM_PYTHON"
#: Never those of the tests' own environment: the proxy must not find another ducto, or a provider's real key.
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "VIRTUAL_ENV", "DATABASE_URL", "DEBUG")


@dataclass(frozen=True, slots=True)
class LiteLLMProxy:
    """A running proxy. `folder` holds its config and the modules that the config names."""

    url: str
    folder: Path
    process: ChildProcess


@contextmanager
def start_litellm(
    config: Mapping[str, Any],
    *,
    modules: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[LiteLLMProxy]:
    """Run the proxy with `config` (as its `config.yaml`) until the block is left, then end it with SIGTERM.

    `modules` are Python files that are put beside the config: name -> text; the package ducto that runs the tests can
    be imported from them. `environment` is laid over ours. Raises `ConfigError` if the proxy cannot be installed or
    does not start.
    """
    python = litellm_python()
    folder = Path(tempfile.mkdtemp(prefix="ducto-litellm-"))
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    for name, text in (modules or {}).items():
        (folder / name).write_text(text)
    port = free_port()
    variables = {
        # Neither the list of prices nor anything else is fetched from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "PYTHONPATH": str(Path(ducto.__file__).parents[1]),
        "HOME": str(folder),
        "NO_PROXY": "127.0.0.1",
        **(environment or {}),
    }
    command = [
        *("/usr/bin/env", *(part for name in _NOT_PASSED_ON for part in ("-u", name))),
        *(f"{name}={value}" for name, value in variables.items()),
        *(str(python), "-c", "from litellm import run_server; run_server()"),
        *("--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)),
    ]
    # As ourselves: another user might not be able to read this Python, or this ducto.
    process = ChildProcess(command, log=folder / "litellm.log", stop_signal=signal.SIGTERM, cwd=folder, keeps_root=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield LiteLLMProxy(url, folder, process)
    finally:
        process.stop()
        remove_folder(folder)


def _wait_until_ready(url: str, process: ChildProcess) -> None:
    # Never through a proxy of the environment: it is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready() -> bool:
        try:
            with opener.open(f"{url}/health/liveliness", timeout=5):
                return True
        except OSError:
            return False

    process.wait_until(ready, name="The LiteLLM proxy", seconds=_START_SECONDS, pause_seconds=0.1)


@functools.cache
def litellm_python() -> Path:
    """The Python of an environment with the proxy. Raises `ConfigError` if it cannot be made."""
    named = os.environ.get(_PYTHON_VARIABLE)
    if named:
        return Path(named)
    try:
        return python_with("litellm", _REQUIREMENTS)
    except ConfigError as error:
        raise ConfigError(
            f"The tests need a LiteLLM proxy: let pip install it, or point {_PYTHON_VARIABLE} at the python of an "
            f"environment that has litellm[proxy], asyncpg and starlette. {error}"
        ) from None
