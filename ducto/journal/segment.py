"""One file of the journal, locked by the process that writes or replays it."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["Segment", "is_held", "require_locks", "sync_folder"]

#: Segments of this process: a child of it must not keep their locks when it dies.
_open: weakref.WeakSet[Segment] = weakref.WeakSet()


class Segment:
    """A file of which this process holds the lock (`flock`) until `close`, or until its death.

    Not safe under threads: one thread at a time.
    """

    def __init__(self, path: Path, descriptor: int, *, size: int) -> None:
        self.path = path
        #: How many bytes are known to be there.
        self.size: int = size
        #: False after a failed `fsync`: the kernel may have dropped what it could not write, and will not say so again.
        self.trusted: bool = True
        self._descriptor = descriptor
        _open.add(self)

    @classmethod
    def create(cls, path: Path) -> Segment | None:
        """A new, empty one; `None` where another process took it for a left one in the moment before it was locked.

        Raises `OSError`.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            locked = _lock(descriptor, path)
        except OSError:
            os.close(descriptor)
            raise
        if not locked:
            os.close(descriptor)
            return None
        return cls(path, descriptor, size=0)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """One that nobody holds; `None` where somebody does, or where it is gone. Raises `OSError`."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _lock(descriptor, path):
                return cls(path, descriptor, size=os.fstat(descriptor).st_size)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, data: bytes, *, sync: bool) -> None:
        """Write at the end, and with `sync` wait for the disk. Raises `OSError`, with the file as it was before, or
        not `trusted` any more.
        """
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._cut_back()
            raise
        if sync:
            self.sync()
        self.size += len(data)

    def sync(self) -> None:
        """Wait for the disk. Raises `OSError`; the file is not `trusted` then."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.trusted = False
            raise

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes. Raises `OSError`."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def read(self) -> bytes:
        """All of it. Raises `OSError`."""
        pieces, position = [], 0
        while piece := os.pread(self._descriptor, 1 << 20, position):
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)

    def close(self, *, remove: bool) -> None:
        """Give the lock back, after removing the file if it is not needed any more. Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if remove:
                # Before the lock is given back, so that nobody adopts what is about to go.
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """In a child of the process that holds it: let go of the file, whose lock stays with the parent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self.trusted = False


def require_locks() -> None:
    """Raises `OSError` on a system without the locks that the journal needs."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "this system has no flock")


def is_held(descriptor: int) -> bool:
    """Does another process (or another segment of this one) hold the lock of that file?"""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def sync_folder(path: Path) -> None:
    """Make the names in a folder last. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Take the lock unless somebody has it, and see that the file is still the one with that name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _forget_all() -> None:
    for segment in list(_open):
        segment.forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_all)
