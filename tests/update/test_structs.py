"""Walking over structs and cutting one: every kind, every offset, checked against the units that it holds."""

from __future__ import annotations

import pytest

from collab.protocol.lib0 import encode_var_string
from collab.update.merge import cut_section
from collab.update.reader import read_update
from collab.update.structs import cut_struct, cut_text, suffix, utf16_length, walk
from tests.support.build import gc, item, section, session, skip, text, update

ME = 300

VALUES = [
    b"\x7d\1",
    b"\x77\3\xc3\xbcx",
    b"\x76\1\1k\x75\2\x7e\x7f",
    b"\x7b" + bytes(8),
    b"\x74\2\0\1",
    b"\x7a" + bytes(8),
]
JSONS = [encode_var_string(one) for one in ("1", "undefined", '{"a":"ü😀"}')]

# Each with the offsets of its fields: behind the info byte, behind the origins, at the content.
STRUCTS = [
    pytest.param(text("aü😀", origin=(9, 4), right=(ME, 1)), 4, id="text"),
    pytest.param(text("ab", key="key"), 2, id="text of a key"),
    pytest.param(text("ab", parent=(9, 70_000)), 2, id="text of a type"),
    pytest.param(gc(7), 7, id="GC"),
    pytest.param(skip(300), 300, id="Skip"),
    pytest.param(item(1, b"\x82\1", origin=(9, 1)), 130, id="deleted"),
    pytest.param(item(2, b"\3" + b"".join(JSONS), right=(9, 1)), 3, id="old JSON"),
    pytest.param(item(3, b"\3abc"), 1, id="binary"),
    pytest.param(item(5, encode_var_string('{"a":1}')), 1, id="embed"),
    pytest.param(item(6, encode_var_string("k") + encode_var_string("true")), 1, id="format"),
    pytest.param(item(7, b"\3\1p", key="k"), 1, id="element"),
    pytest.param(item(7, b"\5\1h"), 1, id="hook"),
    pytest.param(item(7, b"\2"), 1, id="text type"),
    pytest.param(item(8, b"\6" + b"".join(VALUES), origin=(ME, 2)), 6, id="values"),
    pytest.param(item(9, b"\1d\x76\1\4meta\x76\0"), 1, id="subdocument"),
]


@pytest.mark.parametrize(("struct", "length"), STRUCTS)
def test_a_struct_is_found_between_others(struct: bytes, length: int) -> None:
    before, behind = text("x", parent="r"), gc(2)
    data = before + struct + behind
    first, found, last = walk(data, 0, len(data), 10)
    assert (first.clock, first.length, first.stop) == (10, 1, len(before))
    assert (found.clock, found.length) == (11, length)
    assert data[found.start : found.stop] == struct
    assert (found.info, found.kind) == (struct[0], struct[0] & 31)
    assert found.references == found.start + 1
    assert found.references <= found.parent <= found.content < found.stop
    assert (last.clock, last.length, last.stop) == (11 + length, 2, len(data))


def test_the_fields_of_a_struct() -> None:
    [found] = walk(text("ab", origin=(9, 4), right=(ME, 1)), 0, 9, 5)
    assert (found.origin, found.right) == ((9, 4), (ME, 1))
    assert (found.references, found.parent, found.content) == (1, 6, 6)
    [found] = walk(text("ab", key="key"), 0, 10, 5)
    assert (found.origin, found.right, found.references, found.parent, found.content) == (None, None, 1, 1, 8)


@pytest.mark.parametrize("seed", range(6))
def test_walking_ends_where_the_reader_ended(seed: int) -> None:
    for data in session(seed):
        for found in read_update(data).sections:
            walked = list(walk(data, found.start, found.stop, found.clock))
            assert len(walked) == found.count
            assert walked[-1].clock + walked[-1].length == found.end
            assert b"".join(data[one.start : one.stop] for one in walked) == data[found.start : found.stop]


def cut(struct: bytes, offset: int) -> bytes:
    [found] = walk(struct, 0, len(struct), 10)
    return cut_struct(struct, found, ME, offset)


@pytest.mark.parametrize(
    ("struct", "offset", "right"),
    [
        pytest.param(text("abc"), 1, text("bc", origin=(ME, 10)), id="a root is found by the origin"),
        pytest.param(text("abc", key="k"), 2, item(4 | 32, b"\1c", origin=(ME, 11)), id="the key bit stays"),
        pytest.param(text("abc", parent=(9, 1)), 2, text("c", origin=(ME, 11)), id="so is a type"),
        pytest.param(
            text("abc", origin=(9, 8), right=(9, 9)), 1, text("bc", origin=(ME, 10), right=(9, 9)), id="right origin"
        ),
        pytest.param(text("abc", right=(9, 9)), 1, text("bc", origin=(ME, 10), right=(9, 9)), id="only right origin"),
        pytest.param(text("üéa"), 1, text("éa", origin=(ME, 10)), id="two bytes a unit"),
        pytest.param(text("a😀b"), 1, text("😀b", origin=(ME, 10)), id="before a pair"),
        pytest.param(text("a😀b"), 2, text("\ufffdb", origin=(ME, 11)), id="inside a pair"),
        pytest.param(text("a😀b"), 3, text("b", origin=(ME, 12)), id="behind a pair"),
        pytest.param(text("😀😀"), 1, text("\ufffd😀", origin=(ME, 10)), id="inside the first of two"),
        pytest.param(gc(9), 4, gc(5), id="GC"),
        pytest.param(skip(9), 4, skip(5), id="Skip"),
        pytest.param(item(1, b"\x09", right=(9, 9)), 4, item(1, b"\5", origin=(ME, 13), right=(9, 9)), id="deleted"),
        *(
            pytest.param(
                item(8, b"\6" + b"".join(VALUES)),
                at,
                item(8, bytes((6 - at,)) + b"".join(VALUES[at:]), origin=(ME, 9 + at)),
                id=f"values at {at}",
            )
            for at in range(1, 6)
        ),
        *(
            pytest.param(
                item(2, b"\3" + b"".join(JSONS)),
                at,
                item(2, bytes((3 - at,)) + b"".join(JSONS[at:]), origin=(ME, 9 + at)),
                id=f"old JSON at {at}",
            )
            for at in (1, 2)
        ),
    ],
)
def test_the_right_part_of_a_struct(struct: bytes, offset: int, right: bytes) -> None:
    assert cut(struct, offset) == right


@pytest.mark.parametrize("string", ["abc", "aüb", "😀", "a😀😀b", "\ufffd😀"])
def test_a_cut_text_keeps_its_clocks(string: str) -> None:
    units = len(string.encode("utf-16-le")) // 2
    assert utf16_length(string.encode()) == units
    for offset in range(units):
        assert utf16_length(cut_text(string.encode(), offset)) == units - offset


def test_both_sides_of_a_halved_pair_are_u_fffd() -> None:
    """The left side is cut when a delete covers the right one: as yjs ``ContentString.splice`` does."""
    from collab.update.compact import compact

    data = update(section(ME, 0, text("a😀b")), gone={ME: [(2, 2)]})
    assert compact(data).data == update(
        section(ME, 0, text("a\ufffd"), item(1, b"\2", origin=(ME, 1))), gone={ME: [(2, 2)]}
    )
    assert cut(text("a😀b"), 2) == text("\ufffdb", origin=(ME, 11))


def test_suffix_counts_what_it_passes() -> None:
    structs = [text("ab"), text("cde", origin=(ME, 11)), gc(2)]
    data = b"".join(structs)
    first, second = len(structs[0]), len(structs[0] + structs[1])
    assert suffix(data, 0, len(data), 10, ME, 9) == (0, b"", 0)
    assert suffix(data, 0, len(data), 10, ME, 10) == (0, b"", 0)
    assert suffix(data, 0, len(data), 10, ME, 12) == (1, b"", first)
    assert suffix(data, 0, len(data), 10, ME, 13) == (2, text("de", origin=(ME, 12))[:-2], second - 2)
    assert suffix(data, 0, len(data), 10, ME, 15) == (2, b"", second)
    assert suffix(data, 0, len(data), 10, ME, 16) == (3, gc(1), len(data))
    assert suffix(data, 0, len(data), 10, ME, 17) == (3, b"", len(data))
    with pytest.raises(ValueError, match="behind"):
        suffix(data, 0, len(data), 10, ME, 18)


@pytest.mark.parametrize(("size", "structs"), [(1, 5_000), (3, 3_000)])
def test_cutting_a_long_section_anywhere_gives_its_rest(size: int, structs: int) -> None:
    """The marks of the cut section lead to structs too."""
    data = update(section(ME, 7, *(text("abc"[:size], origin=(ME, 6)) for _ in range(structs))))
    [whole] = read_update(data).sections
    for known in (0, 8, 9, 1_000, 2_999, 4_321, whole.end - 1):
        run = cut_section(data, whole, known, whole.end)
        begin = max(known, 7)
        assert (run.client, run.clock, run.end) == (ME, begin, whole.end)
        assert run.structs == -(-(whole.end - begin) // size)
        assert sum(one.length for one in walk(run.data, 0, len(run.data), begin)) == whole.end - begin
        found = {one.start: one.clock for one in walk(run.data, 0, len(run.data), begin)}
        ordinals = list(found)
        for clock, offset, ordinal in zip(run.marks[0::3], run.marks[1::3], run.marks[2::3], strict=True):
            assert found[offset] == clock
            assert ordinals[ordinal] == offset
        assert whole.end - begin < 2_000 or run.marks


def test_cutting_both_ends() -> None:
    structs = [text("ab"), *(text("cde", origin=(ME, 1)) for _ in range(3_000))]
    data = update(section(ME, 0, *structs))
    [whole] = read_update(data).sections
    run = cut_section(data, whole, 3, 2 + 3 * 2_000)
    assert run.structs == 2_000
    assert run.data == text("de", origin=(ME, 2)) + b"".join(structs[2:2_001])


@pytest.mark.parametrize("letters", ["x", "ü", "日", "😀", "aü日😀", "x" * 20_000 + "😀" * 9_000])
def test_a_long_text_is_cut_where_its_clock_says_and_not_copied(letters: str) -> None:
    """The text is looked at in blocks, which end between characters."""
    string = (letters * (100_000 // len(letters)))[:60_000]
    units = len(string.encode("utf-16-le")) // 2
    data = text(string) + gc(1)
    for offset in (1, 2, 16_383, 16_384, 16_385, 16_386, units // 2, units - 2, units - 1):
        passed, head, start = suffix(data, 0, len(data), 0, ME, offset)
        rest = string.encode("utf-16-le")[2 * offset :].decode("utf-16-le", "replace")
        assert passed == 1 and head + data[start:] == text(rest, origin=(ME, offset - 1)) + gc(1)
        assert len(head) < 20
