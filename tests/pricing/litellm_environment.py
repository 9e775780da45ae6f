"""Where the environment of the LiteLLM proxy keeps its packages: its price list is among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ducto.testing.servers.litellm import litellm_python

__all__ = ["litellm_python", "site_packages"]


def site_packages() -> Path:
    """The folder of the packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    command = [str(litellm_python()), "-c", code]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
