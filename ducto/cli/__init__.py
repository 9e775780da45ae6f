"""The command line: `ducto`, and `python -m ducto`.

Each file but the shared ones (`running`, `settings`, `dotenv`, `output`, `charts`, `times`, `options`) is one command
or group of commands; `application` puts them together.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["main"]

#: What the extra `cli` brings, by the names that are imported.
_EXTRA = frozenset({"typer", "rich"})


def main() -> None:
    """Run the command line. Exit codes: 0 done; 1 refused, failed, or faults found; 2 wrong use."""
    try:
        from ducto.cli.application import run
    except ImportError as error:
        if error.name not in _EXTRA:
            raise
        print("ducto: The command line needs the extra 'cli': pip install 'ducto[cli]'", file=sys.stderr)
        sys.exit(2)
    run()


def __getattr__(name: str) -> Any:
    # The application loads when it is asked for, so that `main` can say in a sentence which extra is missing.
    if name == "app":
        from ducto.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
