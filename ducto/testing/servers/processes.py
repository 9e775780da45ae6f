"""Child processes that end with us, whatever happens to us."""

from __future__ import annotations

import contextlib
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

__all__ = ["ChildProcess", "free_port", "give_to_server_user", "run_as_server_user", "server_user"]

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


def run_as_server_user(command: list[str], *, cwd: Path) -> None:
    """Run a program that prepares a server's files, as whom the server will run. Raises `ConfigError` if it fails."""
    user = server_user()
    uid, gid = user or (None, None)
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        user=uid,
        group=gid,
        extra_groups=None if user is None else [],
        cwd=cwd,
    )
    if done.returncode != 0:
        raise ConfigError(f"{Path(command[0]).name} failed: {done.stderr[-1000:]}")


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

    def send_to_family(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it started, as the sessions of a database are: for SIGSTOP, SIGCONT."""
        for pid in _family(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_family(self, *, timeout_seconds: float = 10.0) -> None:
        """SIGKILL to it and to all that it started, and wait for the end of all of them.

        A database server that is killed alone leaves sessions behind which write for a while; started again at once
        it would meet them in its files. Raises `TimeoutError` where one of them does not end.
        """
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGSTOP)  # From now on it starts nobody.
        family = _family(self.pid)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + timeout_seconds
        while alive := _alive().keys() & family:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Killed, but still there after {timeout_seconds} s: {sorted(alive)}")
            time.sleep(0.01)

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


def _alive() -> dict[int, int]:
    """The parent of each process that runs. One that has ended and is only not asked for counts as gone."""
    if not Path("/proc/self/stat").exists():
        told = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in told.splitlines()]
        return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name stands in brackets and may hold anything: proc_pid_stat(5).
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(stat.parent.name)] = int(parent)
    return found


def _family(pid: int) -> set[int]:
    """The process and its descendants."""
    parents = _alive()
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
