"""Postgres clusters whose disks fail, and pairs of which one follows the other."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]

from ducto.testing.servers.postgres import postgres_binaries, wait_for_postgres
from ducto.testing.servers.processes import (
    ChildProcess,
    free_port,
    give_to_server_user,
    remove_folder,
    run_as_server_user,
    server_user,
)

__all__ = ["Cluster", "processes_of"]

_START_SECONDS = 30.0
_BAD_DISK = Path(__file__).with_name("bad_disk.py")


class Cluster:
    """A cluster in a folder of its own, made with `initdb`, or copied from a running one that it then follows."""

    def __init__(self) -> None:
        self._binaries = postgres_binaries("new")
        self._folder = Path(tempfile.mkdtemp(prefix="ducto-cluster-"))
        give_to_server_user(self._folder)
        self._data = self._folder / "data"
        self.port = free_port()
        self._process: ChildProcess | None = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.running:
            self.kill()
        remove_folder(self._folder)

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None
        return self._process

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--no-sync", "--wal-segsize=1")
        self.write_settings(fsync="off")

    def follow(self, other: Cluster) -> None:
        """Become a copy of `other`, which runs, and follow it from the next start on."""
        source = f"host=127.0.0.1 port={other.port} user=postgres application_name=follower"
        self._run(
            "pg_basebackup", "-D", self._data, "-d", source, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"
        )

    def start(self, *, bad_disk: str | None = None, **settings: str) -> None:
        """Start it, with a disk that fails if a fault of `bad_disk.py` is named, and wait until it answers."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # Left by one that was killed.
        (self._folder / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "shared_buffers": "32MB",
            **settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *options]
        if bad_disk is not None:
            # Its user may not be able to read this Python, which therefore drops root itself.
            user = [str(each) for each in server_user() or (-1, -1)]
            command = [sys.executable, str(_BAD_DISK), bad_disk, *user, *command]
        self._process = ChildProcess(
            command,
            log=self._folder / "log",
            stop_signal=signal.SIGINT,
            cwd=self._folder,
            keeps_root=bad_disk is not None,
        )
        wait_for_postgres(self._process, self._binaries, port=self.port)

    async def require_password(self, login: str, password: str) -> None:
        """Make a login that is asked for its password, as everybody is in production. The others still are not."""
        await self.execute(f"CREATE ROLE {login} LOGIN SUPERUSER PASSWORD '{password}'")
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {login} all scram-sha-256\n{rules.read_text()}")
        await self.execute("SELECT pg_reload_conf()::text")

    def write_settings(self, **settings: str) -> None:
        """Settings for the next start, or the next look at them."""
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    async def configure(self, **settings: str) -> None:
        """Change settings of the running cluster that need no restart, and wait until they hold for new sessions."""
        self.write_settings(**settings)
        self.process.send(signal.SIGHUP)
        async with asyncio.timeout(_START_SECONDS):
            for name, value in settings.items():
                while await self.execute(f"SHOW {name}") != value:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to all of its processes, also to those that are stopped."""
        self.process.kill_family()

    async def execute(self, statement: str, *, database: str = "postgres") -> str | None:
        """Run a statement on a connection of its own; the first value of its first row."""
        connection = await asyncpg.connect(self.url(database))
        try:
            found: str | None = await connection.fetchval(statement)
            return found
        finally:
            await connection.close()

    async def new_database(self) -> str:
        """The URL of a fresh database."""
        name = f"books_{secrets.token_hex(4)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _run(self, program: str, *arguments: object) -> None:
        run_as_server_user([str(self._binaries / program), *map(str, arguments)], cwd=self._folder)


def processes_of(postmaster: int) -> dict[int, str]:
    """The children of a server, and what they call themselves."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if int((folder / "stat").read_text().rpartition(") ")[2].split()[1]) == postmaster:
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    return found
