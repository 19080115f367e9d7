"""The index: a document opened by it is the document that was read, and no struct is looked at."""

from __future__ import annotations

import sys
import zlib

import pytest

from collab.engine.document import Document, at_once
from collab.errors import DecodeError, UpdateError
from collab.protocol.lib0 import encode_var_uint
from collab.update.compact import compact
from collab.update.index import encode_index, index_update, open_index
from collab.update.merge import merge_updates
from collab.update.reader import Update, read_update
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.support.build import gc, item, lines, section, session, skip, text, update


def by_reading(*rows: bytes) -> Document:
    return at_once(Document.load(None, None, rows))


def by_index(data: bytes, *rows: bytes) -> Document:
    index = encode_index(data)
    assert index
    return at_once(Document.load(data, index, rows))


LONG = update(
    section(900, 0, *(text("ab", origin=(5, 3)) for _ in range(4_000))),
    section(5, 0, *(item(8, b"\1\x7d\1") for _ in range(5_000))),
    section(1, 0, gc(4)),
    gone={900: [(at * 3, 1) for at in range(2_000)], 5: [(0, 4)], 1: [(0, 4)]},
)


def same(one: Document, other: Document) -> None:
    assert one.encode_state_as_update() == other.encode_state_as_update()
    vector = one.encode_state_vector()
    assert vector == other.encode_state_vector()
    clocks = decode_state_vector(vector)
    for share in (0.0, 0.3, 0.7, 1.0):
        theirs = encode_state_vector({client: int(clock * share) for client, clock in clocks.items()})
        assert one.encode_state_as_update(theirs) == other.encode_state_as_update(theirs)
    for client, clock in clocks.items():
        for at in range(0, clock, max(1, clock // 9)):
            theirs = encode_state_vector({client: at})
            assert one.encode_state_as_update(theirs) == other.encode_state_as_update(theirs)


@pytest.mark.parametrize("data", [*(merge_updates(session(seed)) for seed in range(5)), LONG, b"\0\0"])
def test_opening_by_index_equals_reading(data: bytes) -> None:
    whole = by_reading(data).encode_state_as_update()
    assert whole == data
    opened = by_index(data)
    same(opened, by_reading(data))
    same(at_once(Document.load(data, b"", [])), opened)
    same(at_once(Document.load(data, None, [])), opened)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_rows_behind_a_collected_snapshot(seed: int, share: float) -> None:
    log = session(seed, edits=80)
    kept = int(len(log) * share)
    compacted = compact(by_reading(*log[:kept]).encode_state_as_update())
    opened = at_once(Document.load(compacted.data, compacted.index, log[kept:]))
    same(opened, at_once(Document.load(compacted.data, None, log[kept:])))
    assert opened.encode_state_vector() == by_reading(*log).encode_state_vector()
    # Rows that the snapshot covers do no harm.
    assert (
        at_once(Document.load(compacted.data, compacted.index, log)).encode_state_as_update()
        == opened.encode_state_as_update()
    )


def test_opening_reads_no_struct() -> None:
    index = encode_index(LONG)
    assert lines(lambda: at_once(Document.load(LONG, index, []))) < 300
    # And a diff reads the stretch in which it cuts.
    document = by_index(LONG)
    theirs = encode_state_vector({900: 6_001, 5: 5_000, 1: 4})
    assert lines(lambda: document.encode_state_as_update(theirs)) < 40_000
    assert lines(lambda: list(read_update(LONG).sections)) > 100_000


def test_marks_are_found_by_clock() -> None:
    opened = open_index(LONG, encode_index(LONG))
    assert opened is not None
    assert (opened.end(900), opened.end(5), opened.end(7)) == (8_000, 5_000, 0)
    assert opened.body(7) == (0, 0, 0)
    count, start, stop = opened.body(900)
    assert count == 4_000
    found = [section for section in read_update(LONG).sections if section.client == 900]
    assert (found[0].start, found[0].stop) == (start, stop)
    assert opened.mark(start, stop, 0) == (start, 0, 0)
    offset, clock, ordinal = opened.mark(start, stop, 5_000)
    assert 5_000 - 2_000 < clock <= 5_000
    assert (ordinal, offset) == (clock // 2, start + clock // 2 * ((stop - start) // 4_000))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(update(section(5, 0, text("a")), section(6, 0, text("a"))), id="clients ascend"),
        pytest.param(update(section(5, 3, text("a", origin=(5, 2)))), id="does not begin at 0"),
        pytest.param(update(section(5, 0, text("a"), skip(1), text("b"))), id="a gap"),
        pytest.param(update(section(5, 0, skip(1))), id="a gap alone"),
        pytest.param(update(gone={5: [(0, 1)], 6: [(0, 1)]}), id="deletes ascend"),
        pytest.param(update(gone={5: [(3, 1), (0, 1)]}), id="ranges descend"),
        pytest.param(update(gone={5: [(0, 1), (1, 1)]}), id="ranges touch"),
        pytest.param(update(gone={5: []}), id="no ranges"),
        pytest.param(update(gone={6: [(0, 1)], 5: []}), id="no ranges behind ranges"),
        pytest.param(update(gone={6: [], 5: [(0, 1)]}), id="no ranges before ranges"),
        pytest.param(update()[:1] + bytes.fromhex("02" + "05010001" + "05010501"), id="a client twice in the deletes"),
    ],
)
def test_what_is_not_written_canonically_has_no_index(data: bytes) -> None:
    assert encode_index(data) == b""
    assert open_index(data, b"") is None


def test_a_document_that_is_not_written_canonically_is_opened_all_the_same() -> None:
    data = update(section(5, 0, text("abc")), section(6, 0, text("d")), gone={5: [(2, 1), (0, 1), (1, 1)]})
    document = at_once(Document.load(data, encode_index(data), []))
    assert document.encode_state_as_update() == update(
        section(6, 0, text("d")), section(5, 0, text("abc")), gone={5: [(0, 3)]}
    )


def test_an_index_of_another_format_is_not_used() -> None:
    assert open_index(LONG, b"\2" + encode_index(LONG)[1:]) is None


def test_no_update_has_no_index() -> None:
    with pytest.raises(UpdateError):
        encode_index(b"\0\0\0")


@pytest.mark.parametrize("cut", [2, 10, -1])
def test_a_damaged_index_is_refused(cut: int) -> None:
    with pytest.raises(DecodeError):
        open_index(LONG, encode_index(LONG)[:cut])


def test_an_index_of_another_snapshot_is_refused() -> None:
    with pytest.raises(DecodeError):
        open_index(LONG + b"\0", encode_index(LONG))
    packed = zlib.decompress(encode_index(LONG)[1:])
    # The size of the first client's section follows the head, three client IDs and three ends.
    size = 5 * 8 + 3 * 8 + 3 * 4
    other_size = packed[:size] + bytes((packed[size] ^ 1,)) + packed[size + 1 :]
    for changed in (packed + bytes(16), packed[:-4], packed[:8] + b"\4" + packed[9:], other_size):
        with pytest.raises(DecodeError):
            open_index(LONG, b"\1" + zlib.compress(changed))


def test_an_update_past_4_gib_has_no_index() -> None:
    """Its offsets are kept in four bytes. No such update is at hand, and nothing but its length is looked at."""
    assert index_update(Update(range(1 << 32))) == b""  # type: ignore[arg-type]
    assert index_update(read_update(b"\0\0")) != b""


def test_an_index_is_stored_in_the_same_order_of_bytes_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    little = zlib.decompress(encode_index(LONG)[1:])
    with monkeypatch.context() as there:
        there.setattr(sys, "byteorder", "big")
        # A machine of the other kind swaps what it stores; this one stored the ends as it has them.
        turned = encode_index(LONG)
        opened = open_index(LONG, turned)
    ends = slice(5 * 8 + 3 * 8, 5 * 8 + 3 * 8 + 4)
    assert zlib.decompress(turned[1:])[ends] == little[ends][::-1]
    assert opened is not None
    assert (opened.end(900), opened.end(5), opened.end(7)) == (8_000, 5_000, 0)


def test_an_index_is_small() -> None:
    assert len(encode_index(LONG)) < len(LONG) / 50


def test_the_vector_is_that_of_the_document() -> None:
    opened = open_index(LONG, encode_index(LONG))
    assert opened is not None
    for _ in opened.read_vector():
        pass
    assert encode_var_uint(3) + opened.vector.data == encode_state_vector({900: 8_000, 5: 5_000, 1: 4})
