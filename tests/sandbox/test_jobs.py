"""Content views: every type of root is found from the bytes, nothing is read as what it is not."""

from __future__ import annotations

from typing import Any

import pycrdt
import pytest

from collab.content.shape import RootType, find_roots
from collab.errors import UnreadableContent, UpdateError
from collab.sandbox import jobs


def make() -> tuple[pycrdt.Doc[Any], bytes]:
    """Make a document with a root of every type."""
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    text = document.get("text", type=pycrdt.Text)
    text += "a😀b"
    rich = document.get("rich", type=pycrdt.Text)
    rich.insert(0, "bold", {"b": True})
    rich.insert(4, " plain", {"b": None})
    values = document.get("map", type=pycrdt.Map)
    values["n"] = 5
    values["nested"] = pycrdt.Map({"deep": pycrdt.Array([1.5, None, True, b"\x01"])})
    values["t"] = pycrdt.Text("ü😀")
    values["nan"] = float("nan")
    document.get("array", type=pycrdt.Array).extend(["x", {"k": [1]}, pycrdt.Text("in")])
    fragment = document.get("xml", type=pycrdt.XmlFragment)
    fragment.children.append(pycrdt.XmlElement("p", {"class": "c"}, [pycrdt.XmlText("hi")]))
    return document, document.get_update()


def test_content_shows_every_root_as_what_it_is() -> None:
    assert jobs.content(make()[1]) == {
        "text": "a😀b",
        "rich": [{"insert": "bold", "attributes": {"b": True}}, {"insert": " plain"}],
        "map": {"n": 5, "nested": {"deep": [1.5, None, True, {"base64": "AQ=="}]}, "t": "ü😀", "nan": None},
        "array": ["x", {"k": [1]}, "in"],
        "xml": '<p class="c">hi</p>',
    }


def test_roots_are_told_by_what_lies_in_them() -> None:
    assert find_roots(make()[1]) == {
        "text": RootType.TEXT,
        "rich": RootType.TEXT,
        "map": RootType.MAP,
        "array": RootType.ARRAY,
        "xml": RootType.XML,
    }


def test_collected_content_is_the_same() -> None:
    document, data = make()
    text = document.get("text", type=pycrdt.Text)
    values = document.get("map", type=pycrdt.Map)
    del text[5:6]
    del values["nested"]
    whole = document.get_update()
    compacted = jobs.compact(whole, True)
    assert jobs.content(compacted.data) == jobs.content(whole)
    assert "nested" not in jobs.content(whole)["map"]


def test_a_root_of_which_all_was_deleted_is_left_out() -> None:
    # ContentDeleted in root "t" of client 5.
    assert find_roots(bytes.fromhex("01010500010101740200")) == {"t": RootType.EMPTY}
    assert jobs.content(bytes.fromhex("01010500010101740200")) == {}


def test_deleted_values_of_keys_still_make_a_map() -> None:
    assert find_roots(bytes.fromhex("0101050021010174016b0100")) == {"t": RootType.MAP}


def test_text_with_an_emoji_is_never_read_as_an_array() -> None:
    """C7 (docs/decisions/0002): list() of such a root never returns. Here are values beside the text, too."""
    values_and_text = bytes.fromhex("0102050008010174017d0184050004f09f988000")
    assert find_roots(values_and_text) == {"t": RootType.TEXT}
    jobs.content(values_and_text)


def test_text_below_a_nested_array_is_refused() -> None:
    """C7 one level down: an Array in a map's key, and a string with an emoji in it."""
    nested = bytes.fromhex("0102050027010174016b000400050004f09f988000")
    with pytest.raises(UnreadableContent, match="no text holds text"):
        find_roots(nested)


def test_two_that_wait_for_each_other_are_walked_once() -> None:
    assert find_roots(bytes.fromhex("020106008405000161010510840600016200".replace("0510", "0500"))) == {}


def test_an_xml_hook_is_an_error_of_the_document() -> None:
    """Here yrs takes the hook's name for the delete set, and says nothing."""
    with pytest.raises(UnreadableContent, match="XmlHook"):
        jobs.content(bytes.fromhex("010105000701017805016800"))


def test_half_of_a_surrogate_pair_shows_as_in_yjs() -> None:
    """yrs alone shows "ab" and loses a clock: a😀b with the second half of the pair deleted."""
    assert jobs.content(bytes.fromhex("01010500040101740661f09f9880620105010201")) == {"t": "a\ufffdb"}


def test_malformed_updates_never_reach_the_library() -> None:
    with pytest.raises(UpdateError):
        jobs.content(bytes.fromhex("0100050000"))


def test_a_long_chain_of_origins_needs_no_stack() -> None:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    text = document.get("t", type=pycrdt.Text)
    for at in range(3000):
        text.insert(at, "x", {"n": at})
    assert find_roots(document.get_update()) == {"t": RootType.TEXT}
