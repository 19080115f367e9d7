"""The wall: every hostile update has its verdict, every real one passes, and nothing else ever leaves the reader."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.engine.document import Document, at_once
from collab.errors import UpdateError
from collab.protocol.lib0 import encode_var_string, encode_var_uint
from collab.update import reader as reader_module
from collab.update.compact import compact
from collab.update.reader import MAX_DEPTH, Update, UpdateReader, find_poison, find_poison_in_slices, read_update
from tests.support.build import deletes, gc, identity, item, lines, section, session, skip, text, update
from tests.support.needs import size

HERE = Path(__file__).parent
CORPUS = json.loads((HERE / "data" / "hostile-updates.json").read_text())["updates"]
C5 = json.loads((HERE.parent / "hostile" / "data" / "c5.json").read_text())

# Some 60 to 200 real updates a log, with all kinds of content.
LOGS = [session(seed) for seed in range(4)]
REAL = [data for log in LOGS for data in log]

# Work of one slice, in lines of Python: about two milliseconds.
SLICE_LINES = 60_000


def of(verdict: str) -> list[str]:
    return [name for name, entry in CORPUS.items() if entry["expect"] == verdict]


def hostile(name: str) -> bytes:
    return bytes.fromhex(CORPUS[name]["hex"])


def one(kind: int, content: bytes, **more: Any) -> bytes:
    """An update of one struct of client 5."""
    return update(section(5, 0, item(kind, content, **more)))


def content(read: Update) -> tuple[Any, ...]:
    """Everything that a reader has found, comparable."""
    return (
        read.data,
        [tuple(getattr(found, name) for name in type(found).__slots__) for found in read.sections],
        [tuple(getattr(found, name) for name in type(found).__slots__) for found in read.deletes],
        read.deletes_start,
    )


def test_the_corpus_has_all_three_verdicts() -> None:
    assert sorted(of("refuse") + of("ask") + of("take")) == sorted(CORPUS)
    assert len(of("refuse")) > 15 and len(of("ask")) > 2 and len(of("take")) > 8


@pytest.mark.parametrize("name", of("refuse"))
def test_what_makes_yjs_throw_is_refused_and_changes_nothing(name: str) -> None:
    document = Document()
    with pytest.raises(UpdateError):
        read_update(hostile(name))
    with pytest.raises(UpdateError):
        document.apply_update(hostile(name))
    assert document.flush() is None
    assert (document.version, document.encode_state_as_update()) == (0, b"\0\0")


@pytest.mark.parametrize(("name", "missing"), [("cycle2", (6, 0)), ("skip-only", (5, 0)), ("skip-then-item", (5, 0))])
def test_what_is_not_whole_is_asked_for_and_not_taken(name: str, missing: tuple[int, int]) -> None:
    assert name in of("ask")
    document = Document()
    applied = document.apply_update(hostile(name))
    assert not applied.new
    assert applied.missing is not None and (applied.missing == missing or name == "cycle2")
    assert document.lacks(*applied.missing)
    assert document.flush() is None
    assert document.encode_state_as_update() == b"\0\0"


def test_the_cases_to_ask_for_are_all_of_them() -> None:
    assert sorted(of("ask")) == ["cycle2", "skip-only", "skip-then-item"]


@pytest.mark.parametrize("name", of("take"))
def test_what_yjs_lives_with_is_relayed_byte_for_byte(name: str) -> None:
    data = hostile(name)
    document = Document()
    if data[0] == 0:  # deletes alone: of something that is there
        document.apply_update(update(section(5, 0, text("abcdef"))))
        document.flush()
    assert document.apply_update(data, "author")[:2] == (True, None)
    turn = document.flush()
    assert turn is not None
    assert turn.delta is data
    assert turn.rows[0].data is data


def poison(*path: bytes) -> bytes:
    return b"".join(path)


# C1 to C8 in docs/decisions/0002: each of these ended or bricked a process that held pycrdt.
POISON = {
    "C1 an array nested 26,600 deep": poison(bytes.fromhex("010105000801016101"), b"\x75\x01" * 26_600, b"\x7f\0"),
    "C1 a map nested 26,600 deep": poison(bytes.fromhex("010105000801016101"), b"\x76\x01\x01k" * 26_600, b"\x7f\0"),
    "C1 an array nested 1,000,000 deep": poison(bytes.fromhex("010105000801016101"), b"\x75\1" * 1_000_000, b"\x7f\0"),
    "C1 an embed nested 500,000 deep": one(5, encode_var_string("[" * 500_000 + "]" * 500_000)),
    "C1 a format nested 500,000 deep": one(6, encode_var_string("k") + encode_var_string('{"a":' * 500_000)),
    "C1 old JSON nested 500,000 deep": one(2, b"\1" + encode_var_string("[" * 500_000 + "]" * 500_000)),
    "C1 options of a subdocument": one(9, encode_var_string("d") + b"\x76\x01\x01k" * 100_000 + b"\x7e"),
    "C2 an empty struct list": bytes.fromhex("0100050000"),
    "C2 a text of no length": update(section(5, 0, text(""))),
    "C2 deleted content of no length": one(1, b"\0"),
    "C2 values of no length": one(8, b"\0"),
    "C2 old JSON of no length": one(2, b"\0"),
    "C2 a GC of no length": update(section(5, 0, gc(0))),
    "C2 a Skip of no length": update(section(5, 0, skip(0), text("a"))),
    "C3 a GC at the end of 32 bits": bytes.fromhex("010105ffffffff0f000500"),
    "C3 two texts around the end of 32 bits": bytes.fromhex("010205ffffffff0f0401016103616263040101610361626300"),
    "C3 a GC and a Skip that wrap": bytes.fromhex("0102050300feffffff0f0afeffffff0f00"),
    "C3 a delete past 2^31": update(gone={5: [(2**31 - 1, 2)]}),
    "C4 one clock past 2^31": update(section(5, 2**31 - 1, text("ab"))),
    "C5 a Skip of 2^32-1 behind a subdocument": bytes.fromhex(C5["b"]),
    "C6 a number of 10 MB as the count of clients": b"\xff" * 10_000_000 + b"\1",
    "C6 a number of 10 MB as a clock": b"\1\1\5" + b"\xff" * 10_000_000 + b"\1",
    "C6 a number of 10 MB as an integer value": one(8, b"\1\x7d" + b"\xff" * 10_000_000 + b"\1"),
    "C6 an integer of 10 MB of zero groups": one(8, b"\1\x7d" + b"\x80" * 10_000_000 + b"\1"),
}
POISON |= {
    f"C8 {count} {what}": data
    for count in (2**24, 2**29, 2**53 - 1)
    for what, data in {
        "clients": encode_var_uint(count) + b"\0",
        "structs": b"\1" + encode_var_uint(count) + b"\5\0\0\1\0",
        "clients of the delete set": b"\0" + encode_var_uint(count) + b"\5\1\0\1",
        "deleted ranges": b"\0\1\5" + encode_var_uint(count) + b"\0\1",
        "values": one(8, encode_var_uint(count) + b"\x7e"),
        "texts of old JSON": one(2, encode_var_uint(count) + b"\x041234"),
        "values of an array": one(8, b"\1\x75" + encode_var_uint(count) + b"\x7e"),
        "pairs of a map": one(8, b"\1\x76" + encode_var_uint(count) + b"\1k\x7e"),
        "bytes of text": one(4, encode_var_uint(count) + b"a"),
        "bytes of a root name": b"\1\1\5\0\4\1" + encode_var_uint(count) + b"t\1a\0",
        "bytes of binary": one(3, encode_var_uint(count) + b"a"),
        "bytes of a binary value": one(8, b"\1\x74" + encode_var_uint(count) + b"a"),
        "bytes of an embed": one(5, encode_var_uint(count) + b"1"),
    }.items()
}


@pytest.mark.parametrize("name", POISON)
def test_poison_is_refused_in_bounded_memory(name: str) -> None:
    """No recursion, no quadratic reading, nothing allocated on a peer's word."""
    data = POISON[name]
    tracemalloc.start()
    try:
        with pytest.raises(UpdateError):
            read_update(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000 + 6 * len(data)


def test_the_first_half_of_the_endless_loop_is_refused_too() -> None:
    """C5 was made by a grammar: no client writes a parent in that way."""
    with pytest.raises(UpdateError, match="parent"):
        read_update(bytes.fromhex(C5["a"]))


def test_text_outside_the_bmp_counts_in_utf_16_units() -> None:
    """C7 hangs on such text in the library; here nothing but its length is looked at."""
    [found] = read_update(update(section(5, 3, text("a😀b", origin=(5, 2))))).sections
    assert (found.clock, found.end, found.count) == (3, 7, 1)


@pytest.mark.parametrize("entry", [{5: []}, {5: [(0, 1)]}], ids=["without ranges", "again and again"])
def test_delete_entries_that_no_encoder_writes_become_no_objects(entry: dict[int, list[tuple[int, int]]]) -> None:
    """16 MB of them would have become more than a gigabyte."""
    data = b"\0" + encode_var_uint(100_000) + deletes(entry)[1:] * 100_000
    read = read_update(data)
    assert [(found.client, len(found.ranges)) for found in read.deletes] == ([(5, 200_000)] if entry[5] else [])
    for found in read.deletes:
        assert data[found.start : found.stop] == data[1 + len(encode_var_uint(100_000)) :]


def nested(depth: int) -> bytes:
    return one(8, b"\1" + b"\x75\1" * depth + b"\x7e")


def test_the_depth_of_values_is_bounded_exactly() -> None:
    assert read_update(nested(MAX_DEPTH)).sections
    with pytest.raises(UpdateError, match="deep"):
        read_update(nested(MAX_DEPTH + 1))


def test_shallow_containers_beside_each_other_are_not_deep() -> None:
    assert read_update(one(8, b"\1\x75" + encode_var_uint(5_000) + b"\x75\0" * 5_000)).sections


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        pytest.param(update(section(5, 2**31 - 1, text("a"))), True, id="the last clock"),
        pytest.param(update(section(5, 2**31, text("a"))), False, id="a clock past the last"),
        pytest.param(one(8, b"\1\x7d\xbf\xff\xff\xff\xff\xff\xff\x20"), False, id="an integer past 2^53"),
        pytest.param(one(8, b"\1\x7d\xff\xff\xff\xff\xff\xff\xff\x1f"), True, id="-(2^53-1)"),
        pytest.param(one(8, b"\1\x77" + encode_var_string("ä" * 100)), True, id="a long string"),
        pytest.param(one(8, b"\1\x77" + encode_var_string("a" * 200)[:-1]), False, id="a long string cut off"),
        pytest.param(one(8, b"\1\x73"), False, id="an unknown value"),
        pytest.param(one(7, b"\7"), False, id="an unknown type"),
        pytest.param(one(7, b"\3\1p"), True, id="an element"),
        pytest.param(one(7, b"\3\1\xff"), False, id="an element with a name that is no text"),
        pytest.param(one(11, b"\1"), False, id="an unknown content"),
        pytest.param(one(10 | 32, b"\1", key="k"), False, id="a Skip with a key"),
        pytest.param(b"\1\1\5\0\4\2\1t\1a\0", False, id="a parent that is neither root nor id"),
        pytest.param(one(4, b"\1a", key="k"), True, id="a key"),
        pytest.param(one(4, b"\1a", parent=(5, 0)), False, id="its own parent"),
        pytest.param(one(4, b"\1a", parent=(6, 0)), True, id="a parent of another client"),
        pytest.param(one(4, b"\1a", origin=(5, 0)), False, id="its own origin"),
        pytest.param(one(4, b"\1a", right=(5, 0)), False, id="its own right origin"),
        pytest.param(update(section(300, 0, text("a"), text("b", origin=(300, 0)))), True, id="an origin before"),
        pytest.param(update(section(300, 0, text("a"), text("b", origin=(300, 1)))), False, id="an origin at itself"),
        pytest.param(update(section(5, 0, text("a"))) + b"\0", False, id="bytes behind the end"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"\0", False, id="half of nothing"),
        pytest.param(b"\0\0", True, id="the empty update"),
        pytest.param(b"\x80\0\0", False, id="a number in more bytes than it needs"),
        pytest.param(update(gone={5: []}), True, id="a client without ranges"),
        pytest.param(one(5, encode_var_string("{}")), True, id="an embed"),
        pytest.param(one(5, encode_var_string("NaN")), False, id="an embed that is not JSON"),
        pytest.param(one(6, b"\1k" + encode_var_string('"\\ud83d"')), True, id="a lone surrogate escape"),
        pytest.param(one(6, b"\1\xff\4null"), False, id="a format name that is no text"),
        pytest.param(one(2, b"\2" + encode_var_string("undefined") + b"\x011"), True, id="old undefined"),
        pytest.param(one(9, b"\1d\x76\0"), True, id="a subdocument"),
        pytest.param(one(9, b"\1d\x77\0"), False, id="a subdocument with a string as options"),
        pytest.param(one(4, b"\3\xed\xa0\x80"), False, id="an encoded surrogate"),
        pytest.param(update(section(5, 0, text("a"), skip(2), text("b", origin=(5, 0)))), True, id="a gap"),
    ],
)
def test_bounds(data: bytes, accepted: bool) -> None:
    if accepted:
        assert read_update(data).data is data
    else:
        with pytest.raises(UpdateError):
            read_update(data)


def options(*pairs: tuple[str, bytes], behind: bytes = b"") -> bytes:
    """A subdocument with these options."""
    body = b"".join(encode_var_string(name) + value for name, value in pairs)
    return one(9, encode_var_string("d") + b"\x76" + encode_var_uint(len(pairs)) + body + behind)


def object_of(*pairs: tuple[str, bytes]) -> bytes:
    return b"\x76" + encode_var_uint(len(pairs)) + b"".join(encode_var_string(key) + value for key, value in pairs)


BINARY = b"\x74\x01x"
NULL = b"\x7e"
UNDEFINED = b"\x7f"


@pytest.mark.parametrize(
    ("data", "poison"),
    [
        pytest.param(one(8, b"\1" + object_of(("__proto__", BINARY))), "__proto__", id="a binary prototype"),
        pytest.param(one(8, b"\1" + object_of(("__proto__", b"\x74\0"))), "__proto__", id="an empty binary prototype"),
        pytest.param(one(8, b"\2\x7e" + object_of(("__proto__", BINARY))), "__proto__", id="the second value"),
        pytest.param(one(8, b"\1\x75\1" + object_of(("__proto__", BINARY))), "__proto__", id="in an array"),
        pytest.param(
            one(8, b"\1" + object_of(("__proto__", object_of(("__proto__", BINARY))))), "__proto__", id="of a prototype"
        ),
        pytest.param(
            one(8, b"\1" + object_of(("a", b"\x7d\1"), ("__proto__", NULL), ("__proto__", BINARY))),
            "__proto__",
            id="as its own property, which the next reader takes for the prototype",
        ),
        pytest.param(options(("meta", object_of(("__proto__", BINARY)))), "__proto__", id="in options"),
        pytest.param(one(8, b"\1" + object_of(("__proto__", object_of()))), None, id="an object as prototype"),
        pytest.param(one(8, b"\1" + object_of(("__proto__", b"\x75\1" + BINARY))), None, id="an array as prototype"),
        pytest.param(one(8, b"\1" + object_of(("__proto__", NULL))), None, id="no prototype"),
        pytest.param(one(8, b"\1" + object_of(("__proto__", b"\x7d\1"))), None, id="a number as prototype"),
        pytest.param(one(8, b"\1" + object_of(("__protO__", BINARY))), None, id="another key of that length"),
        pytest.param(one(8, b"\2\x77" + encode_var_string("__proto__") + BINARY), None, id="two values"),
        pytest.param(one(3, b"\1x", key="__proto__"), None, id="binary content of a map"),
        *(
            pytest.param(options(("gc", b"\x78"), ("guid", value)), "guid", id=f"guid {value[0]}")
            for value in (BINARY, NULL, b"\x75\0", b"\x76\0", b"\x7d\5", b"\x78", b"\x7a" + bytes(8))
        ),
        *(
            pytest.param(options(("guid", value)), None, id=f"guid {value[0]}")
            for value in (b"\x77\1g", b"\x77\0", UNDEFINED)
        ),
        *(
            pytest.param(options(("gcFilter", value)), "gcFilter", id=f"gcFilter {value[0]}")
            for value in (b"\x7d\1", NULL, b"\x79", BINARY, b"\x76\0")
        ),
        pytest.param(options(("gcFilter", UNDEFINED)), None, id="gcFilter undefined"),
        pytest.param(options(("meta", object_of(("guid", NULL), ("gcFilter", NULL)))), None, id="in the meta"),
        pytest.param(options(("guids", NULL), ("gui", NULL), ("gcFilters", NULL)), None, id="other options"),
        pytest.param(one(9, b"\1d\x75\2\x77\4guid\x7e"), None, id="options that are an array"),
    ],
)
def test_what_yjs_chokes_on_when_it_writes_it_is_refused(data: bytes, poison: str | None) -> None:
    """And nothing else is: ``__proto__`` alone does no harm. What an older version has stored is named and no more."""
    found = find_poison(data)
    if poison is None:
        assert found is None
        assert content(read_update(data, stored=True)) == content(read_update(data))
    else:
        assert found is not None and poison in found
        with pytest.raises(UpdateError, match=poison):
            Document().apply_update(data)
        read = read_update(data, stored=True)
        assert (read.data, len(read.sections)) == (data, 1)


@pytest.mark.parametrize("more", [0, 20_000])
def test_a_document_that_holds_poison_opens_and_is_compacted(more: int) -> None:
    """Its users would have nothing if it did not; ``verify`` names it."""
    meta = b"\x75" + encode_var_uint(more) + b"\x7e" * more
    data = options(("guid", NULL), ("meta", meta))
    document = at_once(Document.load(None, None, [data]))
    whole = document.encode_state_as_update()
    assert whole == data
    compacted = compact(whole)
    assert at_once(Document.load(compacted.data, compacted.index, [])).encode_state_as_update() == compacted.data
    assert at_once(Document.load(compacted.data, b"", [])).encode_state_as_update() == compacted.data
    assert find_poison(compacted.data) is not None


@pytest.mark.parametrize("broken", [b"", b"\0", b"\1\1\5\0\x09\1\1t\1d\x76\2\4meta"])
def test_what_is_no_update_is_named_as_such(broken: bytes) -> None:
    assert find_poison(broken) is not None
    with pytest.raises(UpdateError):
        read_update(broken, stored=True)


# Written by yjs 13.6.33: a text and a map, nothing, a deletion.
V2 = [
    "00000107000003040028100b7465787468656c6c6f6d6104054100010100010101020075027d01760101627d0200",
    "00000000000001000000000000",
    "0000000000000100000000000107010101",
]


@pytest.mark.parametrize("data", V2)
def test_an_update_in_the_v2_encoding_is_named_as_such(data: str) -> None:
    with pytest.raises(UpdateError, match="looks like V2") as caught:
        read_update(bytes.fromhex(data))
    assert "V2" in caught.value.public and len(caught.value.public) <= 123, "a close frame has room for it"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 10, b"\0\1\2\3", b"\0\xff\xff", b"\1" * 20])
def test_what_is_no_update_in_v2_either_is_malformed(data: bytes) -> None:
    with pytest.raises(UpdateError) as caught:
        read_update(data)
    assert caught.value.public == "malformed update"


def test_a_move_is_named_as_such() -> None:
    moves = bytes((1, 1, 1, 0, 11, 1, 1)) + b"a" + bytes((0, 1, 0, 0))
    with pytest.raises(UpdateError, match="a move") as caught:
        read_update(moves)
    assert "Array.move" in caught.value.public and len(caught.value.public) <= 123


@pytest.mark.parametrize("stored", [False, True])
def test_more_options_than_bytes(stored: bool) -> None:
    with pytest.raises(UpdateError, match="more values than it has bytes for"):
        read_update(one(9, b"\1d\x76" + encode_var_uint(1 << 29) + b"\1k\x7e"), stored=stored)


def nested_options(depth: int) -> bytes:
    return options(("meta", b"\x75\1" * (depth - 1) + b"\x7e"))


def test_options_are_a_level_of_depth() -> None:
    assert read_update(nested_options(MAX_DEPTH)).sections
    assert read_update(nested_options(MAX_DEPTH), stored=True).sections
    for stored in (False, True):
        with pytest.raises(UpdateError, match="deep"):
            read_update(nested_options(MAX_DEPTH + 1), stored=stored)


def test_what_is_found() -> None:
    data = update(
        section(
            700,
            2,
            text("ab", origin=(9, 4), right=(700, 1)),
            gc(3),
            item(1, b"\2", origin=(700, 6)),
            text("c", parent=(8, 1)),
            skip(4),
            text("d", right=(9, 5)),
        ),
        section(1, 0, text("x")),
        gone={3: [(5, 1), (1, 2)], 700: [(0, 9)]},
    )
    read = read_update(data)
    first, gap, second, other = read.sections
    assert (first.client, first.clock, first.end, first.count) == (700, 2, 10, 4)
    assert list(first.references) == [(2, 9, 4), (9, 8, 1)]
    assert list(first.deleted) == [4, 9]
    assert (gap.clock, gap.end, gap.count, data[gap.start : gap.stop]) == (10, 14, 0, skip(4))
    assert (second.clock, second.end, second.count, list(second.references)) == (14, 15, 1, [(14, 9, 5)])
    assert data[second.start : second.stop] == text("d", right=(9, 5))
    assert (other.client, other.clock, other.end, other.references, other.deleted) == (1, 0, 1, (), ())
    assert [(found.client, found.ranges) for found in read.deletes] == [(3, [5, 1, 1, 2]), (700, [0, 9])]
    assert b"".join(data[found.start : found.stop] for found in read.deletes) == data[read.deletes_start + 1 :]


@pytest.mark.parametrize("log", LOGS)
def test_real_updates_pass_and_no_truncation_of_them_does(log: list[bytes]) -> None:
    for data in log:
        assert read_update(data).data is data
        for stop in range(len(data)):
            with pytest.raises(UpdateError):
                read_update(data[:stop])


@settings(deadline=None, max_examples=size(600, small=60))
@given(st.sampled_from(REAL), st.data())
def test_mutated_updates_raise_nothing_but_update_errors(data: bytes, draw: st.DataObject) -> None:
    """And what passes can be taken, encoded and read again, whole."""
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(mutated)))
        to = draw.draw(st.integers(at, min(len(mutated), at + 3)))
        mutated[at:to] = draw.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from((b"\xff" * 9, b"\0", b"\x0a\1", b"\x75\1", b"\x84\5\0")))
        )
    check_survives(bytes(mutated))


@settings(deadline=None, max_examples=size(500, small=60))
@given(st.binary(max_size=60))
def test_noise_raises_nothing_but_update_errors(data: bytes) -> None:
    check_survives(data)
    check_survives(b"\1\1\5\0" + data)
    check_survives(b"\1\1\5\0\x04\1\1t\1a" + data)


def check_survives(data: bytes) -> None:
    document = Document()
    try:
        applied = document.apply_update(data)
    except UpdateError:
        assert document.encode_state_as_update() == b"\0\0"
        return
    assert applied.new or document.encode_state_as_update() == b"\0\0"
    turn = document.flush()
    if turn is not None:
        again = Document()
        assert again.apply_update(turn.delta)[:2] == (True, None)
        assert again.encode_state_vector() == document.encode_state_vector()
        assert again.encode_state_as_update() == document.encode_state_as_update()
    assert document.contains_update(document.encode_state_as_update())


def large() -> dict[str, bytes]:
    """Shapes that are costly each in their own way."""
    part = size(1, small=3)
    choose = random.Random(1)
    strings = [
        text("".join(choose.choices("aü😀", k=choose.randint(1, 9))), origin=(9, 1)) for _ in range(9_000 // part)
    ]
    flat = "[" + "0," * 2_040 + "0]"
    return {
        "short structs": update(section(5, 0, *strings)),
        "many clients": update(*(section(client, 0, text("a")) for client in range(10_000 // part, 0, -1))),
        "gaps": update(section(5, 0, *(text("a"), skip(1)) * (10_000 // part), text("a"))),
        "many values": one(8, encode_var_uint(90_000 // part) + b"\x7d\1" * (90_000 // part)),
        "a large embed": one(5, encode_var_string("[" + "[]," * (40_000 // part) + "0]")),
        "a large format": one(6, b"\1k" + encode_var_string('{"a":[' + '{"b":1},' * (15_000 // part) + "0]}")),
        "much old JSON": one(2, encode_var_uint(60_000 // part) + b"\x011" * (60_000 // part)),
        "old JSON of long lists": one(2, encode_var_uint(120) + encode_var_string(flat) * 120),
        "embeds of long lists": update(section(5, 0, *[item(5, encode_var_string(flat))] * 120)),
        "options of a subdocument": one(
            9, b"\1d\x76\1\1k\x75" + encode_var_uint(90_000 // part) + b"\x7e" * (90_000 // part)
        ),
        "many options of a subdocument": one(
            9, b"\1d\x76" + encode_var_uint(30_000 // part) + b"\1k\x7e" * (30_000 // part)
        ),
        "many deletes": update(gone={5: [(at * 2, 1) for at in range(40_000 // part)]}),
        "deletes of many clients": update(gone={at: [(0, 1)] for at in range(15_000 // part)}),
        "clients without deletes": update(gone={at: [] for at in range(30_000 // part)}),
    }


LARGE = large()


@pytest.mark.parametrize("name", LARGE)
def test_slices_give_what_one_reading_gives_and_none_is_long(name: str) -> None:
    reader = UpdateReader(LARGE[name])
    most = steps = 0
    done: list[bool] = [False]

    def step() -> None:
        done[0] = reader.step(1)

    while not done[0]:
        most = max(most, lines(step))
        steps += 1
    assert content(reader.result) == content(read_update(LARGE[name]))
    assert steps > 5
    assert most < SLICE_LINES
    assert reader.step(1)  # nothing more to do


@settings(deadline=None, max_examples=size(60, small=10))
@given(st.lists(st.sampled_from(REAL), min_size=1, max_size=4), st.integers(1, 1_000))
def test_small_updates_are_read_alike_in_slices(updates: list[bytes], structs: int) -> None:
    for data in updates:
        reader = UpdateReader(data)
        while not reader.step(structs):
            pass
        assert content(reader.result) == content(read_update(data))


def test_a_reader_in_slices_refuses_what_comes_late() -> None:
    reader = UpdateReader(LARGE["short structs"][:-1] + b"\1")
    with pytest.raises(UpdateError):
        while not reader.step():
            pass


def test_marks_lead_back_to_structs() -> None:
    data = LARGE["short structs"]
    [found] = read_update(data).sections
    marks = list(zip(found.marks[0::3], found.marks[1::3], found.marks[2::3], strict=True))
    assert len(marks) > 10
    for clock, offset, ordinal in marks:
        # The rest of the section read by itself: as many structs as are left end where the section ends.
        rest = encode_var_uint(found.count - ordinal) + identity(5, clock) + data[offset : found.stop]
        [again] = read_update(b"\1" + rest + deletes({})).sections
        assert (again.count, again.end) == (found.count - ordinal, found.end)
    assert max(b[1] - a[1] for a, b in zip(marks, marks[1:], strict=False)) < 5_000


LONG = reader_module._LONG_TEXT


@pytest.mark.parametrize(
    "content",
    [
        "x" * (LONG + 1),
        "x" * (3 * LONG),
        "xü€😀" * (LONG // 4),
        *("x" * (LONG - cut) + "😀" + "y" * LONG for cut in range(5)),
    ],
)
def test_a_long_text_is_read_in_portions(content: str) -> None:
    encoded = content.encode()
    data = update(section(5, 0, b"\x04" + b"\x01\x01t" + encode_var_uint(len(encoded)) + encoded))
    reader = UpdateReader(data)
    steps = 1
    while not reader.step():
        steps += 1
    assert steps > len(encoded) // LONG
    assert reader.result.sections[0].end == len(content.encode("utf-16-le")) // 2
    assert read_update(data).sections[0].end == reader.result.sections[0].end


@pytest.mark.parametrize("at", [0, 10, LONG - 1, LONG, LONG + 1, 2 * LONG - 1])
def test_a_long_text_that_is_not_utf_8_is_refused(at: int) -> None:
    encoded = bytearray(b"x" * (2 * LONG))
    encoded[at] = 0xC3
    structs = b"\x04" + b"\x01\x01t" + encode_var_uint(len(encoded)) + bytes(encoded)
    with pytest.raises(UpdateError, match="UTF-8"):
        read_update(update(section(5, 0, structs)))


def test_a_long_text_that_ends_too_early_is_refused() -> None:
    structs = b"\x04" + b"\x01\x01t" + encode_var_uint(4 * LONG) + b"x" * LONG
    with pytest.raises(UpdateError, match="too early"):
        read_update(update(section(5, 0, structs)))


def test_a_long_update_is_looked_through_in_slices() -> None:
    long = update(section(1, 0, *(text("x") for _ in range(20_000))))
    looking, steps = find_poison_in_slices(long), 0
    while next(looking, "end") is None:
        steps += 1
    assert steps > 1
    assert at_once(find_poison_in_slices(long)) is None
