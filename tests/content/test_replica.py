"""Replicas: what an edit gives is what others see of it, and an edit that fails leaves nothing."""

from __future__ import annotations

import gc
import pickle
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pycrdt
import pytest

from collab.content import steps
from collab.content.edits import (
    ArrayAppend,
    Batch,
    Edit,
    Format,
    Patch,
    Replace,
    RootType,
    TextDelete,
    TextFormat,
    TextInsert,
    TextReplace,
)
from collab.content.replica import Replica
from collab.errors import (
    ContentError,
    EditConflict,
    EditNotShown,
    InvalidEdit,
    NoSuchContent,
    SandboxCrashed,
    UnreadableContent,
    UpdateError,
    WrongContentType,
)
from collab.update import merge_updates, read_update

EMPTY = b"\0\0"
CLIENT = 77


def replica(**roots: Any) -> Replica:
    """Make a replica of a document with these JSON roots."""
    made = Replica(EMPTY, CLIENT)
    made.edit(Replace(None, Format.JSON, roots))
    return made


def seen(data: bytes, name: str, type_: Callable[..., Any]) -> Any:
    """Return what another document shows of a root."""
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    root = document.get(name, type=type_)
    document.apply_update(data)
    return root.to_py()


def test_an_edit_is_an_update_of_its_client_that_others_can_apply() -> None:
    made = Replica(EMPTY, CLIENT)
    update = made.edit(Replace("t", Format.TEXT, "hello"))
    assert [(section.client, section.clock, section.end) for section in read_update(update).sections] == [
        (CLIENT, 0, 5)
    ]
    assert seen(update, "t", pycrdt.Text) == "hello"
    more = made.edit(TextInsert("t", 5, " world"))
    assert [(section.clock, section.end) for section in read_update(more).sections] == [(5, 11)]
    assert seen(merge_updates([update, more]), "t", pycrdt.Text) == "hello world"
    assert seen(made.encode(), "t", pycrdt.Text) == "hello world" == made.read(Format.TEXT, "t")


@pytest.mark.parametrize(
    "edit",
    [
        Replace("t", Format.TEXT, "a😀b"),
        Replace("t", Format.JSON, "a😀b"),
        Replace("t", Format.DELTA, [{"insert": "a"}, {"insert": "😀b"}]),
        Replace("m", Format.JSON, {"list": [1.0, None, {"deep": True}], "n": 5}),
        Replace(None, Format.JSON, {"t": "a😀b", "m": {"n": 5, "list": [1, None, {"deep": True}]}, "l": [1]}),
        TextInsert("t", 1, ""),
        TextDelete("t", 4, 0),
        TextReplace("t", "😀", "😀"),
        TextFormat("t", 0, 4, {"bold": None}),
        ArrayAppend("l", ()),
        Patch(({"op": "replace", "path": "/m/n", "value": 5.0}, {"op": "move", "path": "/m/n", "from": "/m/n"})),
        Patch(()),
        Batch(()),
    ],
)
def test_an_edit_that_changes_nothing_is_empty(edit: Edit) -> None:
    made = replica(t="a😀b", m={"list": [1, None, {"deep": True}], "n": 5}, l=[1])
    before = made.encode()
    assert made.edit(edit) == b""
    assert made.encode() == before


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (TextInsert("t", 2, "x"), InvalidEdit, "within a surrogate pair"),
        (TextInsert("t", 5, "x"), InvalidEdit, "the text has 4 UTF-16 units"),
        (TextInsert("t", -1, "x"), InvalidEdit, "no offset"),
        (TextInsert("t", 0, "\ud83d"), InvalidEdit, "half of a surrogate pair"),
        (TextInsert("t", 0, "x", {"__proto__": 1}), InvalidEdit, "__proto__"),
        (TextInsert("m", 0, "x"), WrongContentType, "no text"),
        (TextInsert("nowhere", 0, "x", path=("a",)), NoSuchContent, "nowhere"),
        (TextInsert("m", 0, "x", path=("n",)), WrongContentType, "a plain value"),
        (TextDelete("t", 1, 1), InvalidEdit, "within a surrogate pair"),
        (TextDelete("t", 0, 5), InvalidEdit, "4 UTF-16 units"),
        (TextReplace("t", "x", "y"), EditConflict, "not in the text"),
        (TextReplace("twice", "aa", "y"), EditConflict, "more than once"),
        (TextReplace("t", "", "y"), InvalidEdit, "empty"),
        (TextReplace("nowhere", "x", "y"), NoSuchContent, "nowhere"),
        (Replace("m", Format.JSON, []), WrongContentType, "of type map"),
        (Replace("m", Format.TEXT, "x"), WrongContentType, "of type map"),
        (Replace("new", Format.JSON, 5), InvalidEdit, "shows a string, a list or an object"),
        (Replace(None, Format.JSON, []), InvalidEdit, "an object with its roots"),
        (Replace("m", Format.JSON, {"n": float("nan")}), InvalidEdit, "NaN"),
        (Replace("m", Format.JSON, {"n": [{"__proto__": {}}]}), InvalidEdit, "__proto__"),
        (Replace("m", Format.JSON, {"n": (1 << 60) + 1}), InvalidEdit, "no number of JavaScript"),
        (Replace("m", Format.JSON, {"n": (1 << 70) + 1}), InvalidEdit, "no number of JavaScript"),
        (Replace("m", Format.JSON, {"n": 1 << 20_000}), InvalidEdit, "no number of JavaScript"),
        (Replace("m", Format.JSON, {"n": {1: 2}}), InvalidEdit, "no string"),
        (Replace("m", Format.JSON, {"n": {"\udc00": 2}}), InvalidEdit, "half of a surrogate pair"),
        (Replace("m", Format.JSON, {"n": object()}), InvalidEdit, "no JSON"),
        (Replace("t", Format.DELTA, [{"retain": 1}]), InvalidEdit, "operation 0"),
        (ArrayAppend("t", (1,)), WrongContentType, "no array"),
        (Batch((TextInsert("t", 0, "x"), Batch(()))), InvalidEdit, "edit 1: a batch holds a batch"),
        (Batch((TextInsert("t", 0, "x"), TextInsert("t", 99, "x"))), InvalidEdit, "edit 1: at is 99"),
        (
            Patch(({"op": "add", "path": "/m/x", "value": 1}, {"op": "test", "path": "/m/n", "value": 6})),
            EditConflict,
            "the test of /m/n fails",
        ),
        (
            Patch(({"op": "add", "path": "/m/x", "value": 1}, {"op": "add", "path": "/m/a/b/c", "value": 6})),
            NoSuchContent,
            "/m/a",
        ),
    ],
)
def test_an_edit_that_fails_says_why_and_changes_nothing(edit: Edit, error: type[ContentError], words: str) -> None:
    made = replica(t="a😀b", m={"n": 5}, twice="aaa")
    before = made.encode()
    with pytest.raises(error, match=words):
        made.edit(edit)
    assert made.encode() == before
    assert made.read(Format.JSON) == {"t": "a😀b", "m": {"n": 5}, "twice": "aaa"}
    assert [section.clock for section in read_update(made.edit(TextInsert("t", 4, "c"))).sections] == [
        sum(section.end for section in read_update(before).sections)
    ]


def test_a_deep_value_is_refused_without_recursion_errors() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(InvalidEdit, match="nests more than"):
        Replica(EMPTY, CLIENT).edit(Replace("a", Format.JSON, deep))


def test_offsets_are_utf_16_units() -> None:
    made = replica(t="a😀é😀z")
    made.edit(TextInsert("t", 3, "1"))
    assert made.read(Format.TEXT, "t") == "a😀1é😀z"
    made.edit(TextDelete("t", 4, 3))
    assert made.read(Format.TEXT, "t") == "a😀1z"
    made.edit(TextFormat("t", 1, 2, {"bold": True}))
    assert made.read(Format.DELTA, "t") == [
        {"insert": "a"},
        {"insert": "😀", "attributes": {"bold": True}},
        {"insert": "1z"},
    ]
    made.edit(TextInsert("t", 3, "in"))
    made.edit(TextInsert("t", 5, "out", {}))
    assert made.read(Format.DELTA, "t") == [
        {"insert": "a"},
        {"insert": "😀in", "attributes": {"bold": True}},
        {"insert": "out1z"},
    ]
    made.edit(TextReplace("t", "inout", "in or out"))
    assert made.read(Format.TEXT, "t") == "a😀in or out1z"


def test_a_text_below_a_map_is_reached_by_its_path() -> None:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.get("m", type=pycrdt.Map)["notes"] = pycrdt.Array([1, pycrdt.Text("hello")])
    made = Replica(document.get_update(), CLIENT)
    made.edit(TextInsert("m", 5, " world", path=("notes", 1)))
    made.edit(ArrayAppend("m", ("x",), path=("notes",)))
    assert made.read(Format.JSON, "m") == {"notes": [1, "hello world", "x"]}
    made.edit(Replace("m", Format.JSON, {"notes": [1, "hello there", "x"]}))
    document.apply_update(made.encode())
    assert str(document.get("m", type=pycrdt.Map)["notes"][1]) == "hello there"


def test_bytes_and_large_integers_stay_where_they_are_not_changed() -> None:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.get("m", type=pycrdt.Map)["k"] = {"b": b"\x01\x02", "big": (1 << 60) + 1, "n": 1}
    made = Replica(document.get_update(), CLIENT)
    shown = made.read(Format.JSON, "m")
    assert shown == {"k": {"b": {"base64": "AQI="}, "big": (1 << 60) + 1, "n": 1}}
    assert made.edit(Replace("m", Format.JSON, shown)) == b""
    shown["k"]["n"] = 2
    made.edit(Replace("m", Format.JSON, shown))
    made.edit(Patch(({"op": "add", "path": "/m/k/more", "value": 3},)))
    assert seen(made.encode(), "m", pycrdt.Map) == {
        "k": {"b": bytearray(b"\x01\x02"), "big": (1 << 60) + 1, "n": 2, "more": 3}
    }


def test_updates_of_others_are_taken_in_and_those_that_need_more_are_refused() -> None:
    made = replica(t="hello")
    other: pycrdt.Doc[Any] = pycrdt.Doc(client_id=5)
    text = other.get("t", type=pycrdt.Text)
    other.apply_update(made.encode())
    vector = other.get_state()
    text.insert(5, " you")
    first = other.get_update(vector)
    vector = other.get_state()
    text.insert(9, "!")
    second = other.get_update(vector)
    with pytest.raises(UpdateError, match="does not hold"):
        made.apply(second)
    made.apply(first)
    made.apply(second)
    made.apply(second)
    assert made.read(Format.TEXT, "t") == "hello you!"
    with pytest.raises(UpdateError):
        made.apply(b"\x01")


def test_a_root_that_comes_later_is_read_as_what_it_is() -> None:
    made = Replica(EMPTY, CLIENT)
    for client, (name, type_, change) in enumerate(
        [
            ("t", pycrdt.Text, lambda root: root.insert(0, "😀")),
            ("a", pycrdt.Array, lambda root: root.append("😀")),
            ("m", pycrdt.Map, lambda root: root.update({"k": 1})),
        ],
        1,
    ):
        document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client)
        change(document.get(name, type=type_))
        made.apply(document.get_update())
    assert made.read(Format.JSON) == {"t": "😀", "a": ["😀"], "m": {"k": 1}}
    assert made.roots == {"a": RootType.ARRAY, "m": RootType.MAP, "t": RootType.TEXT}


def test_text_in_a_root_that_was_an_array_makes_it_a_text() -> None:
    """C7 (docs/decisions/0002): the library never returns from reading such a root as an array."""
    made = replica(a=[1, 2])
    other: pycrdt.Doc[Any] = pycrdt.Doc(client_id=5)
    text = other.get("a", type=pycrdt.Text)
    text.insert(0, "😀")
    made.apply(other.get_update())
    assert made.roots == {"a": RootType.TEXT}
    assert "😀" in made.read(Format.TEXT, "a")


@pytest.mark.parametrize(
    "cut",
    [
        "0105010201",  # the second unit deleted
        "0105010101",  # the first
    ],
)
def test_a_pair_that_others_cut_shows_as_in_yjs_and_does_no_harm(cut: str) -> None:
    made = Replica(bytes.fromhex("01010500040101740661f09f98806200"), CLIENT)
    made.apply(bytes.fromhex("00" + cut))
    assert made.read(Format.TEXT, "t") == "a\ufffdb"
    made.edit(TextInsert("t", 3, "c"))
    assert made.read(Format.TEXT, "t") == "a\ufffdbc"


def test_an_insert_between_the_units_of_a_pair_shows_as_in_yjs() -> None:
    """yrs puts it behind the pair, and its clocks are wrong from then on."""
    made = Replica(bytes.fromhex("01010500040101740661f09f98806200"), CLIENT)
    made.apply(bytes.fromhex("01010600c40501050201580000"[:-2]))
    assert made.read(Format.TEXT, "t") == "a\ufffdX\ufffdb"
    made.edit(TextInsert("t", 5, "c"))
    assert made.read(Format.TEXT, "t") == "a\ufffdX\ufffdbc"


def test_a_document_with_gaps_is_read_and_not_edited() -> None:
    """A struct of client 5 at clock 3, of which nothing before is there."""
    made = Replica(bytes.fromhex("010105030401017401610000"[:-2]), CLIENT)
    with pytest.raises(WrongContentType, match="lacks updates"):
        made.edit(Replace("t", Format.TEXT, "x"))


def test_what_the_library_cannot_read_is_refused() -> None:
    with pytest.raises(UnreadableContent, match="XmlHook"):
        Replica(bytes.fromhex("010105000701017805016800"), CLIENT)


def test_a_batch_is_one_update() -> None:
    made = replica(t="one two", m={})
    update = made.edit(
        Batch(
            (
                TextReplace("t", "one", "1"),
                TextReplace("t", "1 two", "1 2"),
                Patch(({"op": "add", "path": "/m/list", "value": [1]}, {"op": "add", "path": "/m/list/-", "value": 2})),
                ArrayAppend("log", ("done",)),
            )
        )
    )
    assert len(read_update(update).sections) == 1
    assert made.read(Format.JSON) == {"t": "1 2", "m": {"list": [1, 2]}, "log": ["done"]}


def test_many_values_are_one_update_and_take_little_time() -> None:
    values = [{"n": number} for number in range(20_000)]
    made = Replica(EMPTY, CLIENT)
    update = made.edit(Replace("a", Format.JSON, values))
    assert seen(update, "a", pycrdt.Array) == values
    assert read_update(update).sections[0].end == 20_000


class Tampering:
    """Writes what the library gives in another way than it shows it, some times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.times = times
        original = merge_updates

        def merge(parts: Sequence[bytes]) -> bytes:
            merged = original(parts)
            if self.times and b"hello" in merged and len(parts) == 1 and parts[0] is not None:
                self.times -= 1
                return merged.replace(b"hello", b"hallo")
            return merged

        monkeypatch.setattr("collab.content.replica.merge_updates", merge)


def test_what_others_would_not_see_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first document shows "hello", its update says "hallo": the difference follows in the same update."""
    made = replica(t="", m={"n": 1})
    tampering = Tampering(monkeypatch, 1)
    before = made.encode()
    update = made.edit(Batch((Replace("t", Format.TEXT, "oh hello"), Replace("m", Format.JSON, {"n": 2}))))
    assert tampering.times == 0
    assert b"hallo" in update
    assert seen(merge_updates([before, update]), "t", pycrdt.Text) == "oh hello" == made.read(Format.TEXT, "t")
    assert made.read(Format.JSON, "m") == {"n": 2}
    assert seen(made.encode(), "t", pycrdt.Text) == "oh hello"


def test_what_cannot_be_mended_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replica(t="", m={"n": 1})
    before = made.encode()
    monkeypatch.setattr(steps.View, "is_shown", lambda self, roots: False)
    Tampering(monkeypatch, 1)
    with pytest.raises(EditNotShown, match="could not be mended"):
        made.edit(Batch((Replace("t", Format.TEXT, "oh hello"), Replace("m", Format.JSON, {"n": 2}))))
    assert made.encode() == before
    assert made.read(Format.JSON) == {"t": "", "m": {"n": 1}} or made.read(Format.JSON) == {"m": {"n": 1}}
    monkeypatch.undo()
    assert seen(merge_updates([before, made.edit(Replace("t", Format.TEXT, "hello"))]), "t", pycrdt.Text) == "hello"


def test_a_rich_text_is_mended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Replica(EMPTY, CLIENT)
    Tampering(monkeypatch, 1)
    made.edit(Replace("x", Format.MARKDOWN, "# oh hello\n\n**b**\n"))
    assert made.read(Format.MARKDOWN, "x") == "# oh hello\n\n**b**\n"


def test_a_panic_of_the_library_costs_the_edit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replica(t="hello")
    before = made.encode()

    def panic(*_: Any) -> None:
        made._main.get("t", type=pycrdt.Text).insert(0, "half of it")
        made._main.get("m", type=pycrdt.Map)["k"] = 2**70

    monkeypatch.setattr(steps, "write_text", panic)
    with pytest.raises(SandboxCrashed, match="Panic"):
        made.edit(Replace("t", Format.TEXT, "other"))
    assert made.encode() == before and made.read(Format.TEXT, "t") == "hello"
    monkeypatch.undo()
    made.edit(Replace("t", Format.TEXT, "other"))
    assert made.read(Format.TEXT, "t") == "other"


def test_edits_and_errors_travel_between_processes() -> None:
    edits = [Replace("t", Format.TEXT, "x"), Patch(({"op": "add"},)), Batch((TextInsert("t", 0, "x"),))]
    assert pickle.loads(pickle.dumps(edits)) == edits
    error = pickle.loads(pickle.dumps(EditConflict("why", edit=3)))
    assert (str(error), error.edit, error.public) == ("why", 3, "why")


def test_a_root_that_an_edit_makes_is_there_for_the_next_one() -> None:
    made = Replica(EMPTY, CLIENT)
    made.edit(
        Batch(
            (
                Replace("t", Format.TEXT, "one"),
                TextInsert("t", 3, " two"),
                ArrayAppend("l", (1,)),
                ArrayAppend("l", (2,)),
            )
        )
    )
    assert made.read(Format.JSON) == {"t": "one two", "l": [1, 2]}
    with pytest.raises(NoSuchContent):
        made.read(Format.JSON, "m")


def test_a_replica_that_is_dropped_is_freed() -> None:
    """A document of the library with a live observer would never be."""
    data = replica(t="x" * 1_000_000).encode()

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def work() -> None:
        made = Replica(data, CLIENT + 1)
        made.edit(TextInsert("t", 5, "y"))
        made.read(Format.TEXT, "t")

    work()
    gc.collect()
    before = memory()
    for _ in range(30):
        work()
    gc.collect()
    assert memory() - before < 30_000_000, "thirty of them would be more than 60 MB"
