"""Taking over what a process left that is not there any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ducto.journal.folder import BooksFolder
from ducto.journal.records import Contents, Record, read_segment
from ducto.journal.segment import Segment

__all__ = ["Adopted", "adopt_segments"]

logger: logging.Logger = logging.getLogger("ducto.journal")

#: Segments that are held at once: each keeps a file open, and its records in memory.
MOST_AT_ONCE = 16


@dataclass(slots=True, eq=False)
class Adopted:
    """A left segment that this process holds: `records` are to be replayed, and `finished` one by one.

    `corrupt_at` is where its damaged pieces were put, if it had any.
    """

    segment: Segment
    records: dict[int, Record]
    corrupt_pieces: int = 0
    corrupt_at: Path | None = None

    def finished(self, number: int) -> None:
        """The store has answered for this record. With the last one the segment is removed."""
        self.records.pop(number, None)
        if not self.records:
            self.segment.close(remove=True)

    def give_back(self) -> None:
        """Leave the rest to another process, or to a later start."""
        self.segment.close(remove=False)


def adopt_segments(folder: BooksFolder, *, held: int, ignored: set[Path]) -> list[Adopted]:
    """Take those that nobody holds, up to a bound of which `held` are taken already. To be run in a thread.

    Empty ones are removed. One of another format or of other books is left as it is, logged, and added to `ignored`.
    Raises `OSError` where the folder cannot be read.
    """
    adopted: list[Adopted] = []
    for path in folder.segments():
        if held + len(adopted) >= MOST_AT_ONCE:
            break
        if path in ignored:
            continue
        try:
            one = _adopt(folder, path, ignored)
        except OSError as error:
            logger.error("The journal %s cannot be replayed (%s); it is tried again.", path, error.strerror)  # noqa: TRY400 - the errno is all there is to say
            continue
        if one is not None:
            adopted.append(one)
    return adopted


def _adopt(folder: BooksFolder, path: Path, ignored: set[Path]) -> Adopted | None:
    segment = Segment.adopt(path)
    if segment is None:
        return None
    try:
        contents = read_segment(segment.read())
        if _is_foreign(contents, folder, path):
            ignored.add(path)
            segment.close(remove=False)
            return None
        made = Adopted(segment, contents.records, len(contents.corrupt))
        if contents.torn:
            logger.info(
                "The process that wrote %s died within a record (%d bytes); the store had not been asked for it.",
                path,
                len(contents.torn),
            )
        if contents.corrupt:
            made.corrupt_at = folder.put_aside_corrupt(path, contents.corrupt)
            logger.error(
                "%d pieces of the journal %s are corrupt: they are in %s, and have to be looked at by hand. The other "
                "%d records are replayed.",
                len(contents.corrupt),
                path,
                made.corrupt_at,
                len(contents.records),
            )
    except BaseException:
        segment.close(remove=False)
        raise
    if not made.records:
        segment.close(remove=True)
        return made if made.corrupt_at is not None else None
    logger.warning("%d settles that another process left in %s are replayed.", len(made.records), path)
    return made


def _is_foreign(contents: Contents, folder: BooksFolder, path: Path) -> bool:
    if contents.foreign_version is not None:
        logger.error(
            "The journal %s is of format %s; it is left alone. Start a version of ducto that knows it to replay it.",
            path,
            contents.foreign_version,
        )
        return True
    if contents.books is not None and contents.books != folder.books:
        logger.error("The journal %s belongs to other books (%s); it is left alone.", path, contents.books)
        return True
    return False
