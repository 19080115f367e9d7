"""Rows packed as a database does it, by hand."""

from __future__ import annotations

from collections.abc import Sequence

from collab.history.packed import PackedRows
from collab.storage.records import LogRow


def pack(rows: Sequence[LogRow], page: int = 3) -> PackedRows:
    """Pack rows, ``page`` of them in each text."""
    written = [
        " ".join(
            (
                str(row.seq),
                row.data.hex(),
                "-" if row.author is None else "x" + row.author.encode().hex().upper(),
                "-" if row.checksum is None else str(row.checksum),
            )
        )
        for row in rows
    ]
    pages = tuple(",".join(written[at : at + page]) for at in range(0, len(written), page))
    return PackedRows(len(rows), sum(len(row.data) for row in rows), pages)
