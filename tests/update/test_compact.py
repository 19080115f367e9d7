"""Collection on bytes: byte by byte on small updates, and by real yjs on random documents."""

from __future__ import annotations

import random
from typing import Any

import pytest

from collab.engine.document import Document
from collab.errors import UpdateError
from collab.protocol.lib0 import encode_var_string, encode_var_uint
from collab.update.compact import compact
from collab.update.index import encode_index
from collab.update.reader import read_update
from tests.support.needs import size
from tests.support.node import NodeScript

CLIENT = 5
ROOT = b"\x01" + encode_var_string("t")


def identity(client: int, clock: int) -> bytes:
    return encode_var_uint(client) + encode_var_uint(clock)


def item(content: bytes, kind: int, origin: int | None = None, right: int | None = None, key: bytes = b"") -> bytes:
    """Encode an item of the client; without origins its parent is the root "t"."""
    info = kind | (0 if origin is None else 128) | (0 if right is None else 64) | (32 if key else 0)
    head = bytes((info,))
    if origin is not None:
        head += identity(CLIENT, origin)
    if right is not None:
        head += identity(CLIENT, right)
    if origin is None and right is None:
        head += ROOT
        if key:
            head += encode_var_string(key.decode())
    return head + content


def text(string: str, origin: int | None = None, right: int | None = None, key: bytes = b"") -> bytes:
    return item(encode_var_string(string), 4, origin, right, key)


def gone(length: int, origin: int | None = None, right: int | None = None, key: bytes = b"") -> bytes:
    return item(encode_var_uint(length), 1, origin, right, key)


def values(*ones: bytes, origin: int | None = None, key: bytes = b"") -> bytes:
    return item(encode_var_uint(len(ones)) + b"".join(ones), 8, origin, None, key)


def update(structs: list[bytes], *ranges: tuple[int, int], clock: int = 0) -> bytes:
    """Encode an update of the client: its structs, and what of them is deleted as (clock, length)."""
    deletes = b"\0"
    if ranges:
        deletes = b"\1" + encode_var_uint(CLIENT) + encode_var_uint(len(ranges))
        deletes += b"".join(encode_var_uint(start) + encode_var_uint(length) for start, length in ranges)
    return b"\1" + encode_var_uint(len(structs)) + identity(CLIENT, clock) + b"".join(structs) + deletes


ONE, TWO, THREE = b"\x7d\x01", b"\x7d\x02", b"\x77\x03\xc3\xbcx"
GC = b"\0"


@pytest.mark.parametrize(
    ("structs", "ranges", "expected"),
    [
        pytest.param([text("a"), text("b", 0), text("ü", 1)], (), [text("abü")], id="typing"),
        pytest.param([text("a", right=None), text("b")], (), [text("a"), text("b")], id="no origin"),
        pytest.param([text("ab"), text("c", 0)], (), [text("ab"), text("c", 0)], id="origin inside"),
        pytest.param(
            [text("ab"), text("c", 0, 1), text("d", 2, 1)], (), [text("ab"), text("cd", 0, 1)], id="equal right origins"
        ),
        pytest.param(
            [text("ab"), text("c", 0, 1), text("d", 2)],
            (),
            [text("ab"), text("c", 0, 1), text("d", 2)],
            id="right origin and none",
        ),
        pytest.param(
            [text("ab"), text("c", 0, 1), text("de", 2)],
            ((4, 1),),
            [text("ab"), text("c", 0, 1), text("d", 2), gone(1, 3)],
            id="right origin and none, deleted in part",
        ),
        pytest.param(
            [text("ab"), text("cd", 1)],
            ((3, 1),),
            [text("abc"), gone(1, 2)],
            id="the live part is joined",
        ),
        pytest.param([text("abc")], ((0, 3),), [gone(3)], id="deleted"),
        pytest.param([text("a"), text("b", 0)], ((0, 1),), [gone(1), text("b", 0)], id="deleted beside live"),
        pytest.param([text("a"), text("b", 0), gone(1, 1)], ((0, 3),), [gone(3)], id="deleted runs"),
        pytest.param(
            [text("abcde")],
            ((1, 1), (3, 1)),
            [text("a"), gone(1, 0), text("c", 1), gone(1, 2), text("e", 3)],
            id="holes",
        ),
        pytest.param([text("ab"), text("cd", 1)], ((1, 2),), [text("a"), gone(2, 0), text("d", 2)], id="hole over two"),
        pytest.param([text("a😀b")], ((2, 1),), [text("a\ufffd"), gone(1, 1), text("b", 2)], id="low half deleted"),
        pytest.param([text("a😀b")], ((1, 1),), [text("a"), gone(1, 0), text("\ufffdb", 1)], id="high half deleted"),
        pytest.param([text("😀😀")], ((1, 2),), [text("\ufffd"), gone(2, 0), text("\ufffd", 2)], id="two halves"),
        pytest.param([values(ONE), values(TWO, THREE, origin=0)], (), [values(ONE, TWO, THREE)], id="values"),
        pytest.param(
            [values(ONE, TWO, THREE)], ((1, 1),), [values(ONE), gone(1, 0), values(THREE, origin=1)], id="value deleted"
        ),
        pytest.param(
            [item(b"\2" + encode_var_string("1") + encode_var_string("undefined"), 2)],
            ((0, 1),),
            [gone(1), item(b"\1" + encode_var_string("undefined"), 2, 0)],
            id="old JSON",
        ),
        pytest.param(
            [values(ONE, ONE, key=b"k"), item(b"\1" + TWO, 8 | 32, 1)],
            (),
            [values(ONE, ONE, key=b"k"), item(b"\1" + TWO, 8 | 32, 1)],
            id="values of a key are never one",
        ),
        pytest.param(
            [values(ONE, key=b"k"), item(b"\1" + TWO, 8 | 32, 0), item(b"\1" + THREE, 8 | 32, 1)],
            ((0, 2),),
            [gone(2, key=b"k"), item(b"\1" + THREE, 8 | 32, 1)],
            id="former values of a key",
        ),
        pytest.param(
            [text("a", key=b"k"), text("b", 0), text("c", 1)],
            (),
            [text("a", key=b"k"), text("b", 0), text("c", 1)],
            id="under a key without saying so",
        ),
        pytest.param(
            [text("a", key=b"k"), text("b", None, 0), text("c", 1), text("d", 2)],
            (),
            [text("a", key=b"k"), text("b", None, 0), text("c", 1), text("d", 2)],
            id="by a right origin",
        ),
        pytest.param(
            [text("a", key=b"k"), text("x"), text("b", 0), text("c", 2), text("y", 1), text("z", 4)],
            ((3, 1),),
            [text("a", key=b"k"), text("x"), text("b", 0), gone(1, 2), text("yz", 1)],
            id="others beside it are joined",
        ),
        pytest.param(
            [text("a"), text("b", 0, key=b"k"), text("c", key=b"k"), text("d", 2)],
            (),
            [text("ab"), text("c", key=b"k"), text("d", 2)],
            id="under no key and saying so",
        ),
        pytest.param([text("abc", key=b"k")], ((1, 1),), [text("abc", key=b"k")], id="a value deleted in part"),
        pytest.param(
            [text("a", key=b"k"), text("bcd", 0)],
            ((0, 2),),
            [gone(1, key=b"k"), text("bcd", 0)],
            id="one deleted in part that does not say so",
        ),
        pytest.param([GC + b"\2", GC + b"\3", text("a", 4)], ((0, 5),), [GC + b"\5", text("a", 4)], id="GC"),
        pytest.param(
            [GC + b"\xac\2", text("ä" * 99, 299), text("b", 398)],
            ((0, 300), (398, 1)),
            [GC + b"\xac\2", text("ä" * 98, 299), gone(1, 397), text("b", 398)],
            id="lengths of two bytes",
        ),
        pytest.param(
            [item(encode_var_string("guid") + b"\x76\0", 9), text("a", 0)],
            ((0, 1),),
            [gone(1), text("a", 0)],
            id="deleted subdocument",
        ),
        pytest.param([item(b"\1", 7), text("a", 0)], ((0, 1),), [gone(1), text("a", 0)], id="deleted type"),
        pytest.param(
            [item(encode_var_string("b") + encode_var_string("true"), 6), text("a", 0)],
            ((0, 1),),
            [gone(1), text("a", 0)],
            id="deleted format",
        ),
        pytest.param(
            [item(encode_var_string("{}"), 5), item(encode_var_string("{}"), 5, 0)],
            (),
            [item(encode_var_string("{}"), 5), item(encode_var_string("{}"), 5, 0)],
            id="embeds are never one",
        ),
        pytest.param(
            [text("a"), b"\x0a\2", text("b", 0)], (), [text("a"), b"\x0a\2", text("b", 0)], id="a gap is kept"
        ),
    ],
)
def test_bytes(structs: list[bytes], ranges: tuple[tuple[int, int], ...], expected: list[bytes]) -> None:
    assert compact(update(structs, *ranges)).data == update(expected, *ranges)


@pytest.mark.parametrize("client", [1, 127, 128, 300, 1 << 31, (1 << 53) - 1])
def test_client_ids_of_all_sizes(client: int) -> None:
    own = encode_var_uint(client)
    data = b"\1\2" + own + b"\0" + text("a") + b"\x84" + own + b"\0" + encode_var_string("b") + b"\0"
    assert compact(data).data == b"\1\1" + own + b"\0" + text("ab") + b"\0"


def test_an_origin_of_another_client_does_not_join() -> None:
    other = b"\x84" + identity(CLIENT + 1, 0) + encode_var_string("b")
    data = b"\2\1" + identity(CLIENT + 1, 0) + text("x") + b"\2" + identity(CLIENT, 0) + text("a") + other + b"\0"
    assert compact(data).data == data


def chain(*structs: tuple[int, bytes]) -> bytes:
    """A whole document: structs of clients, each with its section from clock 0."""
    of: dict[int, list[bytes]] = {}
    for client, struct in structs:
        of.setdefault(client, []).append(struct)
    sections = [encode_var_uint(len(of[c])) + identity(c, 0) + b"".join(of[c]) for c in sorted(of, reverse=True)]
    return encode_var_uint(len(of)) + b"".join(sections) + b"\0"


def behind(client: int, clock: int, string: str, bit: int = 0) -> bytes:
    return bytes((4 | 128 | bit,)) + identity(client, clock) + encode_var_string(string)


def test_a_key_is_found_from_client_to_client() -> None:
    """The last of the chain stands first in the update, and the values of the second client lie under no key."""
    under = [(7, behind(6, 1, "c")), (7, behind(7, 0, "d")), (6, behind(5, 0, "a")), (6, behind(6, 0, "b"))]
    lying = chain((5, text("k", key=b"k")), *under, (8, text("x")), (8, behind(8, 0, "y")))
    joined = chain((5, text("k", key=b"k")), *under, (8, text("xy")))
    assert compact(lying).data == joined
    # With nothing under a key, all of them are one text.
    assert compact(chain((5, text("k")), *under)).data == chain(
        (5, text("k")), (7, behind(6, 1, "cd")), (6, behind(5, 0, "ab"))
    )


def test_what_a_part_of_a_document_refers_to_lies_under_no_key() -> None:
    """Such as an update that goes on where another ended, and two that wait for each other."""
    parts = [(6, behind(7, 0, "a")), (7, behind(6, 0, "b")), (7, behind(7, 0, "c")), (9, behind(10, 3, "u"))]
    lying = chain((5, text("k", key=b"k")), (5, text("l", 0)), *parts, (9, behind(9, 0, "v")))
    joined = chain(
        (5, text("k", key=b"k")), (5, text("l", 0)), parts[0], (7, behind(6, 0, "bc")), (9, behind(10, 3, "uv"))
    )
    assert compact(lying).data == joined


def test_keys_are_found_in_linear_time() -> None:
    """Of a chain that goes to and fro between clients, in the order that takes longest."""
    for count in (2_000, 20_000):
        structs = [(9, text("k", key=b"k"))]
        for at in range(count):
            structs.append((8 if at % 2 else 7, behind(9 if not at else 7 if at % 2 else 8, max(0, at - 1) // 2, "a")))
        data = chain(*structs)
        assert compact(data).data == data


def test_a_section_that_begins_later_keeps_its_clocks() -> None:
    assert compact(update([text("c", 1), text("d", 2)], clock=2)).data == update([text("cd", 1)], clock=2)


def test_with_gc_off_deleted_content_is_kept_and_runs_are_joined_on_either_side() -> None:
    structs = [text("a"), text("b", 0), text("c", 1), text("d", 2)]
    assert compact(update(structs, (1, 2)), gc=False).data == update([text("a"), text("bc", 0), text("d", 2)], (1, 2))
    assert compact(update([text("abc")], (1, 1)), gc=False).data == update([text("abc")], (1, 1))


def test_deletes_in_any_order_and_overlapping() -> None:
    data = update([text("abcdef")], (4, 1), (1, 2), (2, 1))
    structs = [text("a"), gone(2, 0), text("d", 2), gone(1, 3), text("f", 4)]
    assert compact(data).data == update(structs, (4, 1), (1, 2), (2, 1))


def test_an_empty_document() -> None:
    assert compact(b"\0\0").data == b"\0\0"


@pytest.mark.parametrize("cut", range(len(update([text("abc"), values(ONE, TWO, origin=2)], (0, 1)))))
def test_every_truncation_is_refused(cut: int) -> None:
    with pytest.raises(UpdateError):
        compact(update([text("abc"), values(ONE, TWO, origin=2)], (0, 1))[:cut])


def load(script: NodeScript, *documents: list[bytes], gc: bool = True) -> list[Any]:
    """Return what yjs makes of each list of updates."""
    return list(script.call([["reader", [data.hex() for data in one], gc, True, True] for one in documents]))


def seen(view: dict[str, Any]) -> tuple[str, str, str]:
    return view["content"], view["vector"], view["deletes"]


def make_document(script: NodeScript, seed: int, split: bool) -> tuple[Document, int]:
    """Let some clients edit and exchange in Node; return the document and the number of clients."""
    choose = random.Random(seed)
    count = choose.randint(2, 4)
    script.call([["open", seed, seed, split]] + [["client", seed, choose.random() < 0.5, None] for _ in range(count)])
    commands: list[list[Any]] = [["connect", seed, client] for client in range(count)]
    for _ in range(choose.randint(5, 25)):
        one, other = choose.sample(range(count), 2)
        commands += [["edit", seed, one, choose.randint(1, 8)], ["side", seed, one, other, False]]
    script.call(commands)
    document = Document()
    for copy in script.call([["copy", seed, client] for client in range(count)]):
        assert document.apply_update(bytes.fromhex(copy)).missing is None
    document.flush()
    return document, count


@pytest.mark.node
def test_yjs_deletes_the_same_under_a_key_whatever_the_structs_say() -> None:
    values_of_a_key = [
        update([text("a", key=b"k"), text("b", 0), text("c", 1)]),
        update([text("a", key=b"k"), text("bc", 0), text("d", 2)], (2, 1)),
        update([text("abc", key=b"k"), text("d", 2)], (1, 1)),
        chain((5, text("k", key=b"k")), (6, behind(5, 0, "a")), (6, behind(6, 0, "b")), (6, behind(6, 1, "c"))),
        chain((5, text("k", key=b"k")), (4, behind(5, 0, "a", 32)), (4, behind(4, 0, "b")), (4, behind(4, 1, "c"))),
    ]
    with NodeScript("yjs_oracle.mjs") as script:
        pairs = [[data.hex(), compact(data, gc=gc).data.hex()] for data in values_of_a_key for gc in (True, False)]
        assert script.call([["same", pairs]]) == [[None] * len(pairs)]
        # Joined, the first of them shows the same and deletes less: so it can fail.
        [[different]] = script.call([["same", [[pairs[0][0], update([text("abc", key=b"k")]).hex()]]]])
        assert different["library"] == "yjs 13"


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.node
def test_yjs_sees_the_same_document_and_later_edits_meet_it(split: bool) -> None:
    """Content, vector and delete set are equal, also after concurrent edits of those who never saw the collection."""
    shrunk = 0
    with NodeScript("yjs_fuzz.mjs") as script:
        for seed in range(1, 1 + size(80, small=20)):
            document, count = make_document(script, seed, split)
            raw = document.encode_state_as_update()
            compacted = compact(raw)
            shrunk += len(compacted.data) < len(raw)
            assert compact(compacted.data).data == compacted.data
            assert compacted.index == encode_index(compacted.data) != b""
            before, after = load(script, [raw], [compacted.data])
            assert seen(before) == seen(after), f"seed {seed}"
            assert bytes.fromhex(after["vector"]) == document.encode_state_vector()

            # The old clients go on; a new one begins with the compacted document and edits too.
            [joiner] = script.call([["client", seed, True, compacted.data.hex()]])
            script.call([["connect", seed, joiner]])
            results = script.call([["edit", seed, client, 6] for client in range(count + 1)])
            later = [bytes.fromhex(data) for frames in results for _, data in frames]
            # Whoever lacks something of another client gets it from the document.
            everything = [[2, data.hex()] for data in (raw, *later)]
            results = script.call([["receive", seed, client, everything] for client in range(count + 1)])
            cleaned = [bytes.fromhex(data) for frames in results for _, data in frames]
            of_raw, of_compacted = load(script, [raw, *later, *cleaned], [compacted.data, *later, *cleaned])
            assert seen(of_raw) == seen(of_compacted), f"seed {seed}"
            assert not of_compacted["pending"]
            if not split:
                others = script.call([["receive", seed, c, [[2, d.hex()] for d in cleaned]] for c in range(count + 1)])
                views = script.call([["view", seed, client, True] for client in range(count + 1)])
                if not any(others):
                    assert {view["content"] for view in views} == {of_compacted["content"]}, f"seed {seed}"
                assert {view["vector"] for view in views} == {of_compacted["vector"]}, f"seed {seed}"
            # And what a server makes of the same: collecting again after the edits changes nothing.
            document.rebase(compacted.data, compacted.index, document.encode_state_vector())
            for data in (*later, *cleaned):
                document.apply_update(data)
            again, first = load(
                script, [compact(document.encode_state_as_update()).data], [document.encode_state_as_update()]
            )
            assert seen(again) == seen(first), f"seed {seed}"
            script.call([["close", seed]])
    assert shrunk > size(60, small=15)


@pytest.mark.node
def test_with_gc_off_yjs_finds_every_deleted_unit() -> None:
    with NodeScript("yjs_fuzz.mjs") as script:
        for seed in range(1, 1 + size(60, small=15)):
            document, _ = make_document(script, seed, False)
            raw = document.encode_state_as_update()
            before, after = load(script, [raw], [compact(raw, gc=False).data], gc=False)
            assert before["dump"] == after["dump"], f"seed {seed}"
            assert seen(before) == seen(after), f"seed {seed}"
            script.call([["close", seed]])


@pytest.mark.node
def test_a_hundred_thousand_edits_shrink_to_what_yjs_would_store() -> None:
    with NodeScript("yjs_fuzz.mjs") as script:
        [typed] = script.call([["typing", 7, 100_000, 0.85]])
        document = Document()
        for data in typed["updates"]:
            document.apply_update(bytes.fromhex(data))
            document.flush()
        raw = document.encode_state_as_update()
        assert len(raw) > 1_000_000
        compacted = compact(raw)
        before, after = load(script, [raw], [compacted.data])
        assert seen(before) == seen(after)
        # yjs joins only what lies side by side in the list, so it cannot be smaller.
        assert len(compacted.data) <= before["size"]
        assert sum(section.count for section in read_update(compacted.data).sections) < 40_000
