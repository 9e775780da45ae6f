"""Child processes that end with us, whatever happens to us."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ducto.errors import ConfigError

__all__ = ["ChildProcess", "free_port", "give_to_server_user", "server_user"]

#: Runs in the child before the server: drop root, which Postgres refuses to run as, and die with the parent (Linux).
_LAUNCHER = """\
import ctypes, os, sys
uid, gid, bound = (int(each) for each in sys.argv[1:4])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if bound and sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, bound)
os.execv(sys.argv[4], sys.argv[4:])
"""


def server_user() -> tuple[int, int] | None:
    """Whom servers run as: nobody else than we, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise RuntimeError("Running as root needs a user 'postgres' or 'nobody' to run the servers as.")


def give_to_server_user(path: Path) -> None:
    user = server_user()
    if user is not None:
        os.chown(path, *user)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class ChildProcess:
    """A server that was started with `command`; its output goes to `log`.

    Started by root it runs as `server_user()`, unless it `keeps_root`.
    """

    def __init__(
        self, command: list[str], *, log: Path, stop_signal: signal.Signals, cwd: Path, keeps_root: bool = False
    ) -> None:
        uid, gid = (None if keeps_root else server_user()) or (-1, -1)
        # The kernel binds the child to the thread that started it, so only the main thread may be bound to.
        bound = int(signal.SIGQUIT) if threading.current_thread() is threading.main_thread() else 0
        self._stop_signal = stop_signal
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, str(uid), str(gid), str(bound), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def send(self, number: signal.Signals) -> None:
        """Send a signal, for tests of faults."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    def wait_until(self, ready: Callable[[], bool], *, name: str, seconds: float, pause_seconds: float = 0.05) -> None:
        """Wait until it is `ready`. Raises `ConfigError`, with the end of its log, where it ends or is late."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise ConfigError(f"{name} did not start: {self.log_tail()}")
            time.sleep(pause_seconds)

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """End it in order, by force if it does not. Harmless when repeated."""
        if not self.running:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
