"""What can be read of a segment, whatever was done to its bytes."""

from __future__ import annotations

import json

import pytest

from ducto.journal.records import header_line, read_segment, record_line, strike_line

HEADER = header_line(books="b", pid=1, at_milliseconds=0)
RECORDS = [record_line(number, 0, json.dumps({"amount": number * 7}).encode()) for number in range(1, 5)]


def test_what_is_not_struck_out_is_outstanding() -> None:
    found = read_segment(HEADER + b"".join(RECORDS) + strike_line([1, 3]) + strike_line([99]))
    assert {number: record.entry for number, record in found.records.items()} == {2: {"amount": 14}, 4: {"amount": 28}}
    assert (found.books, found.foreign_version, found.corrupt, found.torn) == ("b", None, [], b"")


@pytest.mark.parametrize("damaged", [0, 1, 3])
@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF, "line break"])
def test_one_changed_byte_costs_its_record_alone_at_every_offset(damaged: int, change: int | str) -> None:
    begin = len(HEADER) + sum(map(len, RECORDS[:damaged]))
    whole = HEADER + b"".join(RECORDS)
    for offset in range(begin, begin + len(RECORDS[damaged])):
        value = 0x0A if isinstance(change, str) else whole[offset] ^ change
        if value == whole[offset]:
            continue
        data = bytearray(whole)
        data[offset] = value
        found = read_segment(bytes(data))
        others = {number for number in range(1, 5) if number != damaged + 1}
        assert others <= set(found.records), offset
        # The line break after a record is not part of what its checksum covers: without it the record is still whole.
        is_line_break = offset == begin + len(RECORDS[damaged]) - 1
        assert (damaged + 1 in found.records) == is_line_break, offset
        assert (b"".join(found.corrupt) == bytes(data)[begin : begin + len(RECORDS[damaged])]) != is_line_break, offset
        assert found.torn == b"", offset


def test_a_line_that_was_not_finished_is_torn_and_not_corrupt_at_every_byte() -> None:
    whole = HEADER + b"".join(RECORDS)
    begin = len(whole) - len(RECORDS[-1])
    for end in range(begin + 1, len(whole)):
        found = read_segment(whole[:end])
        assert found.corrupt == []
        if end == len(whole) - 1:  # Only the line break is missing.
            assert set(found.records) == {1, 2, 3, 4}
        else:
            assert set(found.records) == {1, 2, 3}
            assert found.torn == whole[begin:end]


def test_blocks_that_never_reached_the_disk_are_torn() -> None:
    found = read_segment(HEADER + RECORDS[0] + RECORDS[1][:9] + bytes(4096))
    assert set(found.records) == {1}
    assert (found.corrupt, len(found.torn)) == ([], 9 + 4096)


def test_a_damaged_header_costs_no_record() -> None:
    for offset in range(len(HEADER) - 1):
        data = bytearray(HEADER + b"".join(RECORDS))
        data[offset] ^= 0x20
        assert set(read_segment(bytes(data)).records) == {1, 2, 3, 4}


def test_random_bytes_are_corrupt_and_raise_nothing() -> None:
    assert read_segment(b"").records == {}
    found = read_segment(b"\x00\n+ \n+ 00000002 00000000 {}\n" + RECORDS[0])
    assert set(found.records) == {1}
    assert len(found.corrupt) == 1
