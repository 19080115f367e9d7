"""A document of packed rows is the one that is read row by row, and what is not whole is none."""

from __future__ import annotations

import pytest

from collab.engine.document import Document, at_once
from collab.engine.rebuilt import rebuild
from collab.history.packed import PackedRows
from collab.storage.checksums import row_checksum
from collab.storage.records import LogRow
from collab.update.compact import compact
from tests.support.author import Author
from tests.support.build import session
from tests.support.packing import pack

NOTHING = PackedRows(0, 0, ())


def rows_of(updates: list[bytes]) -> list[LogRow]:
    return [LogRow(seq, data, 1.0, "ann", row_checksum(data, "ann")) for seq, data in enumerate(updates, 1)]


def typed(count: int) -> list[LogRow]:
    author = Author(7)
    for number in range(count):
        author.type(f"{number} ")
        if number % 5 == 4:
            del author.text[0:3]
    return rows_of(author.updates)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_is_read_row_by_row(seed: int) -> None:
    rows = rows_of(session(seed))
    split = len(rows) // 3
    read = at_once(Document.load(None, None, [row.data for row in rows]))
    begun = compact(at_once(Document.load(None, None, [row.data for row in rows[:split]])).encode_state_as_update())
    behind = at_once(Document.load(begun.data, begun.index, [row.data for row in rows[split:]]))
    for wanted, snapshot, packed in (
        (read, (None, None), pack(rows)),
        (read, (None, None), pack(rows)._replace(pages=pack(rows).pages[::-1])),
        (behind, (begun.data, begun.index), pack(rows[split:])),
        (behind, (begun.data, b""), pack(rows[split:])),
        (behind, (behind.encode_state_as_update(), b""), NOTHING),
    ):
        made = rebuild(*snapshot, packed)
        assert made is not None
        document = at_once(Document.load(made.data, made.index, ()))
        assert document.encode_state_as_update() == made.data == wanted.encode_state_as_update()
        assert document.encode_state_vector() == wanted.encode_state_vector()
        assert (document.resets, document.strict, document.waiting) == (wanted.resets, wanted.strict, [])


def test_what_is_not_whole_is_left_to_the_caller() -> None:
    rows = typed(10)
    assert rebuild(None, None, pack(rows)) is not None
    damaged = [*rows[:4], rows[4]._replace(data=rows[4].data[:-1] + b"\1"), *rows[5:]]
    unreadable = [*rows[:4], rows[4]._replace(data=b"\1", checksum=None), *rows[5:]]
    for packed in (damaged, unreadable, rows[:4] + rows[5:]):
        assert rebuild(None, None, pack(packed)) is None
    assert rebuild(None, None, PackedRows(1, 1, ("no row",))) is None
    assert rebuild(b"no update", b"", NOTHING) is None
