"""Rows as the database writes them down: read as they were, and what is damaged is seen."""

from __future__ import annotations

import pytest

from collab.history.packed import PackedRow, PackedRows, unpack
from collab.storage.checksums import is_damaged, row_checksum
from collab.storage.records import LogRow
from tests.support.packing import pack

ROWS = [
    LogRow(1, b"\x00\xff", 1.0, None, row_checksum(b"\x00\xff", None)),
    LogRow(2, b"", 1.0, "", row_checksum(b"", "")),
    LogRow(3, b"x", 1.0, "ann, or - as she says", row_checksum(b"x", "ann, or - as she says")),
    LogRow(4, b"y", 1.0, "ännchen"),
    LogRow(5, b"z", 1.0, None, 1 << 40),
    LogRow(6, b"!", 1.0, "ann", row_checksum(b"?", "ann")),
    LogRow(7, b"!", 1.0, "bob", row_checksum(b"!", "ann")),
]


@pytest.mark.parametrize("page", [1, 3, 100])
def test_rows_are_read_as_they_were_written(page: int) -> None:
    found = list(unpack(pack(ROWS, page)))
    assert found == [
        PackedRow(row.seq, row.data, None if row.author is None else row.author.encode(), row.checksum) for row in ROWS
    ]


def test_the_same_rows_are_damaged_as_for_the_store() -> None:
    assert (
        [row.seq for row in unpack(pack(ROWS)) if row.damaged] == [row.seq for row in ROWS if is_damaged(row)] == [6, 7]
    )


@pytest.mark.parametrize("page", ["", "1", "1 00 -", "1 00 - - -", "1 0 - -", "x 00 - -", "1 00 - -,", "1 0g - -"])
def test_what_is_written_otherwise_is_an_error(page: str) -> None:
    with pytest.raises(ValueError):
        list(unpack(PackedRows(1, 1, (page,))))
