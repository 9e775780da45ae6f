"""A module of this package as a process of its own."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

from ducto.testing.servers.processes import ChildProcess
from tests.faults.books import Part

__all__ = ["START_SECONDS", "PythonProcess"]

#: How long a process may take to begin, on a busy machine.
START_SECONDS = 60.0
_ROOT = Path(__file__).resolve().parents[2]


class PythonProcess:
    """A module of this package as a process, which can be started again after its end."""

    def __init__(self, module: str, part: Part) -> None:
        self.part = part
        self._module = module
        self._child: ChildProcess | None = None

    def start(self) -> None:
        self._child = ChildProcess(
            [sys.executable, "-m", f"tests.faults.{self._module}", self.part.to_json()],
            log=Path(self.part.folder) / f"{self.part.name}.log",
            stop_signal=signal.SIGTERM,
            cwd=_ROOT,
            keeps_root=True,
        )

    @property
    def child(self) -> ChildProcess:
        assert self._child is not None
        return self._child

    def stop(self, *, timeout_seconds: float = 15.0) -> None:
        if self._child is not None:
            self._child.stop(timeout_seconds=timeout_seconds)

    def wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.part.port), timeout=1).close()
            except OSError:
                if not self.child.running or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.part.name} did not start: {self.child.log_tail()}") from None
                time.sleep(0.05)
            else:
                return
