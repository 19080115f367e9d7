"""JSON Patch: the examples of RFC 6902, shared types below, and what must be refused."""

from __future__ import annotations

from typing import Any

import pycrdt
import pytest

from collab.content.edits import Format, Patch, Replace
from collab.content.replica import Replica
from collab.errors import ContentError, EditConflict, InvalidEdit, NoSuchContent, WrongContentType


def patched(document: dict[str, Any], operations: list[dict[str, Any]], nested: bool, shared: bool) -> Any:
    """Apply a patch to a document in a root, or below a key of one."""
    replica = Replica(b"\0\0", 7)
    value = {"below": document} if nested else document
    replica.edit(Replace("doc", Format.JSON, value, shared=shared))
    prefix = "/doc/below" if nested else "/doc"
    moved = [
        {**operation, **{name: prefix + operation[name] for name in ("path", "from") if name in operation}}
        for operation in operations
    ]
    update = replica.edit(Patch(tuple(moved)))
    shown = replica.read(Format.JSON, "doc")
    if update:
        other: pycrdt.Doc[Any] = pycrdt.Doc()
        root = other.get("doc", type=pycrdt.Map)
        other.apply_update(replica.encode())
        assert root.to_py() == shown
    return shown["below"] if nested else shown


# Appendix A of RFC 6902, without those that change the whole document: (document, patch, result).
EXAMPLES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "A1 adding an object member": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux"}],
        {"baz": "qux", "foo": "bar"},
    ),
    "A2 adding an array element": (
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    "A3 removing an object member": ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    "A4 removing an array element": (
        {"foo": ["bar", "qux", "baz"]},
        [{"op": "remove", "path": "/foo/1"}],
        {"foo": ["bar", "baz"]},
    ),
    "A5 replacing a value": (
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    "A6 moving a value": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    "A7 moving an array element": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "A8 testing a value": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    "A10 adding a nested member object": (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    "A11 ignoring unrecognized elements": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    "A14 escape ordering": ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    "A16 adding an array value": (
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
    "copying": (
        {"foo": {"a": [1, {"b": 2}]}},
        [{"op": "copy", "from": "/foo", "path": "/bar"}, {"op": "replace", "path": "/bar/a/1/b", "value": 3}],
        {"foo": {"a": [1, {"b": 2}]}, "bar": {"a": [1, {"b": 3}]}},
    ),
    "null is a value": (
        {"a": None, "b": 1},
        [{"op": "test", "path": "/a", "value": None}, {"op": "replace", "path": "/b", "value": None}],
        {"a": None, "b": None},
    ),
    "each sees what those before it did": (
        {"list": []},
        [
            {"op": "add", "path": "/list/0", "value": {"n": 1}},
            {"op": "add", "path": "/list/0", "value": {"n": 0}},
            {"op": "add", "path": "/list/1/m", "value": "one"},
            {"op": "move", "from": "/list/0", "path": "/first"},
        ],
        {"list": [{"n": 1, "m": "one"}], "first": {"n": 0}},
    ),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("document", "operations", "result"), EXAMPLES.values(), ids=EXAMPLES)
def test_the_examples_of_the_rfc(
    document: dict[str, Any], operations: list[dict[str, Any]], result: dict[str, Any], nested: bool, shared: bool
) -> None:
    assert patched(document, operations, nested, shared) == result


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("operations", "error", "words"),
    [
        ([{"op": "test", "path": "/baz", "value": "bar"}], EditConflict, "the test of .*/baz fails"),
        ([{"op": "test", "path": "/one", "value": True}], EditConflict, "fails"),
        ([{"op": "add", "path": "/no/bat", "value": "qux"}], NoSuchContent, "/no"),
        ([{"op": "remove", "path": "/no"}], NoSuchContent, "/no"),
        ([{"op": "replace", "path": "/no", "value": 1}], NoSuchContent, "/no"),
        ([{"op": "add", "path": "/list/4", "value": 1}], NoSuchContent, "/list/4"),
        ([{"op": "add", "path": "/list/01", "value": 1}], NoSuchContent, "no index"),
        ([{"op": "add", "path": "/list/-1", "value": 1}], NoSuchContent, "no index"),
        ([{"op": "remove", "path": "/list/-"}], NoSuchContent, "no index"),
        ([{"op": "remove", "path": "/list/9" + "9" * 40}], NoSuchContent, "no index"),
        ([{"op": "move", "from": "/deep", "path": "/deep/er"}], InvalidEdit, "into itself"),
        ([{"op": "add", "path": "/~2", "value": 1}], InvalidEdit, "~"),
        ([{"op": "add", "path": "/__proto__", "value": 1}], InvalidEdit, "__proto__"),
        ([{"op": "add", "path": "/deep/__proto__", "value": 1}], InvalidEdit, "__proto__"),
        ([{"op": "add", "path": "/x", "value": float("inf")}], InvalidEdit, "Infinity"),
        ([{"op": "add", "path": "/x"}], InvalidEdit, "lacks value"),
        ([{"op": "move", "path": "/x"}], InvalidEdit, "lacks from"),
        ([{"op": "gone", "path": "/x"}], InvalidEdit, "none of"),
        ([{"op": ["add"], "path": "/x"}], InvalidEdit, "none of"),
        ([{"op": "add", "path": "/x" * 100, "value": 1}], InvalidEdit, "steps"),
        ([{"op": "add", "path": "/x", "value": 1}, {"op": "remove", "path": "/y"}], NoSuchContent, "/y"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is(
    operations: list[dict[str, Any]], error: type[ContentError], words: str, nested: bool, shared: bool
) -> None:
    document = {"baz": "qux", "one": 1, "list": [1, 2, 3], "deep": {"k": {}}}
    with pytest.raises(error, match=words) as raised:
        patched(document, operations, nested, shared)
    assert raised.value.edit == len(operations) - 1


def test_a_path_needs_a_root_that_is_there() -> None:
    replica = Replica(b"\0\0", 7)
    replica.edit(Replace("t", Format.TEXT, "hello"))
    for path, error in (("", InvalidEdit), ("t", InvalidEdit), ("/t/0", WrongContentType), ("/new/a/b", NoSuchContent)):
        with pytest.raises(error):
            replica.edit(Patch(({"op": "add", "path": path, "value": 1},)))
    with pytest.raises(InvalidEdit, match="no object"):
        replica.edit(Patch((1,)))  # type: ignore[arg-type]


def test_roots_are_made_and_replaced() -> None:
    replica = Replica(b"\0\0", 7)
    replica.edit(
        Patch(
            (
                {"op": "add", "path": "/map/key", "value": 1},
                {"op": "add", "path": "/list/-", "value": 1},
                {"op": "add", "path": "/text", "value": "hello"},
                {"op": "add", "path": "/text", "value": "hello world"},
                {"op": "copy", "from": "/map", "path": "/other"},
                {"op": "remove", "path": "/map"},
            )
        )
    )
    assert replica.read(Format.JSON) == {"map": {}, "list": [1], "text": "hello world", "other": {"key": 1}}


def test_a_copy_that_doubles_ends() -> None:
    replica = Replica(b"\0\0", 7)
    replica.edit(Replace("m", Format.JSON, {"a": ["x" * 1000]}))
    double = [{"op": "copy", "from": "/m/a", "path": "/m/a/-"} for _ in range(40)]
    with pytest.raises(InvalidEdit, match=r"copies more|holds more|nests more"):
        replica.edit(Patch(tuple(double)))
    assert replica.read(Format.JSON, "m") == {"a": ["x" * 1000]}


def test_a_shared_type_below_keeps_what_others_have_in_it() -> None:
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=5)
    notes = pycrdt.Text("hello")
    document.get("m", type=pycrdt.Map)["inner"] = pycrdt.Map({"notes": notes, "n": 1})
    replica = Replica(document.get_update(), 7)
    notes += " there"
    for operation in (
        {"op": "replace", "path": "/m/inner/notes", "value": "oh hello"},
        {"op": "replace", "path": "/m/inner", "value": {"notes": "oh hello", "n": 2}},
    ):
        document.apply_update(replica.edit(Patch((operation,))))
    assert document.get("m", type=pycrdt.Map).to_py() == {"inner": {"notes": "oh hello there", "n": 2}}
