"""Restoring one element: a node of a rich text by its id, an entry of an array, a key of a map; the rest stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.content.rewinding import restore
from collab.errors import NoSuchContent
from collab.history.tasks import Restore

SERVER = 4_000_000_001


def edited(first: Callable[[Doc[Any]], object], then: Callable[[Doc[Any]], object]) -> tuple[bytes, bytes]:
    """Return a document before and after a change, by two clients."""
    doc: Doc[Any] = Doc(client_id=1)
    first(doc)
    before = doc.get_update()
    other: Doc[Any] = Doc(client_id=2)
    other.apply_update(before)
    then(other)
    return before, other.get_update()


def restored(before: bytes, now: bytes, root: str, element: str, type_: type[Any]) -> Any:
    """Restore an element; return its root as a peer shows it."""
    update = restore(Restore(now, before, None, SERVER, root, element))
    peer: Doc[Any] = Doc()
    shown = peer.get(root, type=type_)
    peer.apply_update(now)
    if update:
        peer.apply_update(update)
    return shown


def write_nodes(doc: Doc[Any]) -> None:
    fragment = doc.get("rich", type=XmlFragment)
    for name, text in (("a", "first"), ("b", "second")):
        fragment.children.append(XmlElement("paragraph", {"id": name}, contents=[XmlText(text)]))
    fragment.children.append(
        XmlElement("list", {"id": "l"}, contents=[XmlElement("item", {"id": "i"}, contents=[XmlText("inner")])])
    )


@pytest.mark.parametrize("element", ["a", "b", "i", "new"])
def test_an_element_of_xml_is_restored(element: str) -> None:
    def change(doc: Doc[Any]) -> None:
        fragment = doc.get("rich", type=XmlFragment)
        fragment.children[0].children[0].insert(0, "not ")
        del fragment.children[1]
        fragment.children[1].children[0].children[0].insert(0, "not ")
        fragment.children.append(XmlElement("paragraph", {"id": "new"}, contents=[XmlText("added")]))

    before, now = edited(write_nodes, change)
    shown = str(restored(before, now, "rich", element, XmlFragment))
    paragraphs = {
        "a": ('<paragraph id="a">first</paragraph>', '<paragraph id="a">not first</paragraph>'),
        "b": ('<paragraph id="b">second</paragraph>', ""),
        "i": ('<item id="i">inner</item>', '<item id="i">not inner</item>'),
        "new": ("", '<paragraph id="new">added</paragraph>'),
    }
    for name, (then, after) in paragraphs.items():
        wanted, other = (then, after) if name == element else (after, then)
        assert wanted in shown, "an empty one is in all of them"
        assert not other or other not in shown


def test_a_key_of_a_map_is_restored() -> None:
    def write(doc: Doc[Any]) -> None:
        doc["meta"] = Map({"title": "old", "gone": Text("nested"), "stays": 1})

    def change(doc: Doc[Any]) -> None:
        held = doc.get("meta", type=Map)
        held["title"] = "new"
        del held["gone"]
        held["stays"] = 2
        held["added"] = [1]

    before, now = edited(write, change)
    rest = {"title": "new", "stays": 2, "added": [1]}
    for key, expected in (
        ("title", rest | {"title": "old"}),
        ("gone", rest | {"gone": "nested"}),
        ("added", {"title": "new", "stays": 2}),
    ):
        assert restored(before, now, "meta", key, Map).to_py() == expected
    assert isinstance(restored(before, now, "meta", "gone", Map)["gone"], Text)
    with pytest.raises(NoSuchContent):
        restored(before, now, "meta", "never", Map)


def test_an_entry_of_an_array_is_restored_where_it_was() -> None:
    def write(doc: Doc[Any]) -> None:
        doc["list"] = Array([Map({"id": name, "x": 1}) for name in "abc"])

    def change(doc: Doc[Any]) -> None:
        del doc.get("list", type=Array)[1]

    before, now = edited(write, change)
    shown = restored(before, now, "list", "b", Array).to_py()
    assert [each["id"] for each in shown] == ["a", "b", "c"]
    assert restored(before, now, "list", "a", Array).to_py() == [{"id": "a", "x": 1}, {"id": "c", "x": 1}]
