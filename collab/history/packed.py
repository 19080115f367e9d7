"""Rows of a log as the database puts them together, on their way into a sandbox process.

Strategy: thousands of rows as objects hold up the loop while they are made, in whatever thread that is done: an
interpreter runs one of them at a time. So the database writes them behind each other, and the server passes on a few
long texts without a look at them. The process reads the rows, and compares their checksums.

    number SPACE update SPACE author SPACE checksum, and a comma behind each row but the last one

Updates are in hexadecimal digits, authors too, with an ``x`` before them; an author or a checksum that is not there
is a ``-``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

KNOWN: Final = 1 << 32
"""Checksums below this are CRC-32; larger ones are left to other algorithms of later releases."""


class PackedRows(NamedTuple):
    """Rows in pages of the text above.

    Attributes:
        total: how many there are.
        nbytes: how many bytes of updates they have.
        pages: the texts, in any order.
    """

    total: int
    nbytes: int
    pages: tuple[str, ...]


class PackedRow(NamedTuple):
    """A row as it was written down; ``author`` is as the log has it, in bytes."""

    seq: int
    data: bytes
    author: bytes | None
    checksum: int | None

    @property
    def damaged(self) -> bool:
        """Whether the bytes are not those that were written; False too if nobody knows."""
        checksum = self.checksum
        return checksum is not None and checksum < KNOWN and checksum != checksum_of(self.data, self.author)


def checksum_of(data: bytes, author: bytes | None) -> int:
    """Make the checksum of a row."""
    checksum = crc32(data)
    return checksum if author is None else crc32(author, checksum)


def unpack(rows: PackedRows) -> Iterator[PackedRow]:
    """Give the rows, in the order of the pages; raises ValueError when a page is not written as above."""
    for page in rows.pages:
        for row in page.split(","):
            seq, data, author, checksum = row.split(" ")
            yield PackedRow(
                int(seq),
                bytes.fromhex(data),
                None if author == "-" else bytes.fromhex(author.removeprefix("x")),
                None if checksum == "-" else int(checksum),
            )
