"""The folder of one set of books: its segments, and what was put aside."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from ducto.journal.segment import Segment, require_locks, sync_folder

__all__ = ["CORRUPT", "REFUSED_NAME", "SEGMENT", "BooksFolder"]

SEGMENT = ".journal"
CORRUPT = ".corrupt"
REFUSED_NAME = "settles.refused.jsonl"

#: What is put aside as refused is bounded as well; beyond that it is in the log alone.
REFUSED_MAX_BYTES = 64 * 1024 * 1024

#: Tells this process's files from those of another one with its pid, in another container for instance.
_TOKEN = secrets.token_hex(4)
_numbers = count(1)


class BooksFolder:
    """`root/NAME-OF-THE-BOOKS-HASH`, of mode 0700, made when it is first written to."""

    def __init__(self, root: Path, books: str) -> None:
        self.root = root
        self.books = books
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", books).strip("-.")[:60]
        self.path: Path = root / f"{readable}-{hashlib.sha256(books.encode()).hexdigest()[:12]}"

    def check(self) -> None:
        """Can it be written? Makes the folder that was named, and not yet its own. Raises `OSError` where not."""
        require_locks()
        make_private(self.root)
        for path in (self.root, self.path):
            if path.exists() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def make(self) -> None:
        """Make it and those above it, so that they last. Raises `OSError`."""
        make_private(self.root)
        if not self.path.is_dir():
            make_private(self.path)
            sync_folder(self.root)

    def new_segment(self) -> Segment:
        """An empty segment that this process holds. Raises `OSError`."""
        self.make()
        while True:
            made = Segment.create(self.path / f"{os.getpid()}-{_TOKEN}-{next(_numbers)}{SEGMENT}")
            if made is not None:
                return made

    def segments(self) -> Iterator[Path]:
        """The paths of all segments, oldest first as far as the clock tells. Raises `OSError`."""
        try:
            found = [entry for entry in os.scandir(self.path) if entry.name.endswith(SEGMENT)]
        except FileNotFoundError:
            return
        for _, path in sorted((modified, entry.path) for entry in found if (modified := _modified(entry)) is not None):
            yield Path(path)

    def put_aside_refused(self, line: bytes) -> bool:
        """Note a record that the store refused for good; false where there are too many of them. Raises `OSError`."""
        self.make()
        descriptor = os.open(self.path / REFUSED_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(line) > REFUSED_MAX_BYTES:
                return False
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def put_aside_corrupt(self, segment: Path, pieces: list[bytes]) -> Path:
        """Keep the damaged pieces of a segment, byte for byte, as often as it is done. Raises `OSError`."""
        path = segment.with_suffix(CORRUPT)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(descriptor)
        sync_folder(self.path)
        return path


def make_private(path: Path) -> None:
    """The folder, readable by its owner alone, and those above it. What is there stays as it is. Raises `OSError`."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _modified(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_mtime_ns
    except FileNotFoundError:
        return None
