"""Group commit, and what the disk may do to it."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ducto.journal import BooksFolder, JournalUnavailableError, JournalWriter, adopt_segments
from ducto.journal import segment as segment_module
from tests.journal.support import BOOKS, contents, segments

ENTRY = b'{"kind":"settlement","user_id":"u"}'


@pytest.fixture
def writer(folder: Path) -> Iterator[JournalWriter]:
    made = JournalWriter(BooksFolder(folder, BOOKS), max_bytes=1_000_000)
    yield made
    made.close()


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `fsync` was called for."""
    called: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        called.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(segment_module.os, "fsync", counted)
    return called


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - a thread writes, and tells nobody
            await asyncio.sleep(0.01)


async def test_many_records_share_an_fsync_and_each_is_on_disk_when_told(
    writer: JournalWriter, folder: Path, syncs: list[int]
) -> None:
    first = await writer.append(ENTRY)
    assert [set(one.records) for one in contents(folder)] == [{first}]
    before = len(syncs)

    async def one() -> None:
        number = await writer.append(ENTRY)
        assert number in contents(folder)[0].records

    await asyncio.gather(*(one() for _ in range(256)))
    assert 1 <= len(syncs) - before <= 4
    assert writer.outstanding == 257


async def test_the_file_and_the_folder_are_the_owners_alone(writer: JournalWriter, folder: Path) -> None:
    await writer.append(ENTRY)
    (path,) = segments(folder)
    assert [one.stat().st_mode & 0o777 for one in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


async def test_strikes_need_no_fsync_and_the_last_one_empties_the_file(
    writer: JournalWriter, folder: Path, syncs: list[int]
) -> None:
    numbers = [await writer.append(ENTRY) for _ in range(3)]
    (path,) = segments(folder)
    before = len(syncs)
    writer.strike(numbers[0])
    writer.strike(numbers[0])
    await eventually(lambda: set(contents(folder)[0].records) == set(numbers[1:]))
    for number in numbers[1:]:
        writer.strike(number)
    header = len(path.read_bytes().split(b"\n")[0]) + 1
    await eventually(lambda: path.stat().st_size == header)
    assert len(syncs) == before
    writer.close()
    assert segments(folder) == []


async def test_what_is_outstanding_at_the_end_stays_and_is_adopted(writer: JournalWriter, folder: Path) -> None:
    kept, struck = await writer.append(ENTRY), await writer.append(ENTRY)
    writer.strike(struck)
    assert adopt_segments(BooksFolder(folder, BOOKS), held=0, ignored=set()) == []  # it is held
    writer.close()
    (adopted,) = adopt_segments(BooksFolder(folder, BOOKS), held=0, ignored=set())
    assert set(adopted.records) == {kept}
    assert adopt_segments(BooksFolder(folder, BOOKS), held=0, ignored=set()) == []  # now we hold it
    adopted.finished(kept)
    assert segments(folder) == []


async def test_a_file_with_few_live_records_is_replaced_by_a_small_one(writer: JournalWriter, folder: Path) -> None:
    kept = await writer.append(ENTRY)
    (first,) = segments(folder)
    large = b'{"x":"' + b"x" * 60_000 + b'"}'
    for _ in range(25):
        writer.strike(await writer.append(large))
    (second,) = segments(folder)
    assert second != first
    assert second.stat().st_size < 1_100_000
    assert kept in contents(folder)[0].records


async def test_more_than_the_bound_is_not_taken_and_there_is_room_again(folder: Path) -> None:
    writer = JournalWriter(BooksFolder(folder, BOOKS), max_bytes=10_000)
    entry = b'{"x":"' + b"x" * 900 + b'"}'
    numbers = [await writer.append(entry) for _ in range(8)]
    assert writer.became_nearly_full() is False
    numbers.append(await writer.append(entry))
    assert [writer.became_nearly_full(), writer.became_nearly_full()] == [True, False]
    numbers.append(await writer.append(entry))
    with pytest.raises(JournalUnavailableError, match="full: 10 records"):
        await writer.append(entry)
    writer.strike(numbers[0])
    await writer.append(entry)
    writer.close()


async def test_after_a_failed_fsync_all_that_is_outstanding_goes_to_a_new_file(
    writer: JournalWriter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await writer.append(ENTRY)
    (first,) = segments(folder)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(segment_module.os, "fsync", broken)
        for _ in range(3):  # the first one fails, and then each new file
            with pytest.raises(JournalUnavailableError, match="Input/output error"):
                await writer.append(ENTRY)
    assert segments(folder) == [first]
    number = await writer.append(ENTRY)
    (second,) = segments(folder)
    assert second != first
    assert set(contents(folder)[0].records) == {kept, number}
    assert writer.outstanding == 2


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """The journal's folder on a file system of 1 MB; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_reported_and_leaves_no_torn_record(small_disk: Path) -> None:
    writer = JournalWriter(BooksFolder(small_disk, BOOKS), max_bytes=100_000_000)
    entry = b'{"x":"' + b"x" * 30_000 + b'"}'
    numbers: list[int] = []

    async def fill() -> None:
        while True:
            numbers.append(await writer.append(entry))

    with pytest.raises(JournalUnavailableError, match="No space left"):
        await fill()
    assert len(numbers) > 20
    (found,) = contents(small_disk)
    assert (set(found.records), found.torn, found.corrupt) == (set(numbers), b"", [])
    for number in numbers:
        writer.strike(number)
    await eventually(lambda: segments(small_disk)[0].stat().st_size < 1000)
    writer.strike(await writer.append(entry))
    writer.close()


async def test_without_a_file_descriptor_it_says_so_and_recovers(writer: JournalWriter) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(JournalUnavailableError, match="Too many open files"):
            await writer.append(ENTRY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await writer.append(ENTRY)


async def test_a_cancelled_caller_leaves_a_record_for_the_next_process(writer: JournalWriter, folder: Path) -> None:
    waiting = asyncio.ensure_future(writer.append(ENTRY))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await eventually(lambda: bool(segments(folder)) and len(contents(folder)[0].records) == 1)


def test_a_forked_child_has_a_journal_of_its_own_and_does_not_keep_the_parents_lock(
    writer: JournalWriter, folder: Path
) -> None:
    asyncio.run(_append(writer))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_in_child(writer, folder, read_end, write_end))
    try:
        os.close(read_end)
        writer.close()  # The child still lives: it lets go of the lock as soon as it runs.
        deadline = time.monotonic() + 5
        while not (found := adopt_segments(BooksFolder(folder, BOOKS), held=0, ignored=set())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (adopted,) = found
        assert len(adopted.records) == 1
        adopted.give_back()
    finally:
        os.close(write_end)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(len(one.records) for one in contents(folder)) == [1, 1]


async def _append(writer: JournalWriter) -> None:
    assert writer.outstanding == 0
    await writer.append(ENTRY)


def _in_child(writer: JournalWriter, folder: Path, read_end: int, write_end: int) -> int:
    """Appends, and lives until the parent has had its look."""
    os.close(write_end)
    try:
        asyncio.run(_append(writer))
        os.read(read_end, 1)
    except Exception:  # noqa: BLE001 - the parent is told by the exit code
        return 1
    return 0 if segments(folder) else 1
