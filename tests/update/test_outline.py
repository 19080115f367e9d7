"""What is said of an update: compared with what the author of it has done, for whole random sessions."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from collab.errors import UpdateError
from collab.update.outline import MAX_CLIENTS, MAX_TEXT, Outline, outline
from collab.update.reader import read_update


def whole(work: Generator[None, None, Outline]) -> tuple[Outline, int]:
    yields = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, yields
        yields += 1


def test_all_structs_and_deletes_are_counted() -> None:
    chosen = random.Random(1)
    docs: list[Doc[Any]] = [Doc(client_id=1 + number) for number in range(MAX_CLIENTS + 5)]
    for doc in docs:
        doc["text"], doc["map"] = Text(), Map()
        text: Any = doc["text"]
        for _ in range(20):
            text.insert(chosen.randrange(len(text) + 1), chosen.choice(["a", "lang ", "😀"]))
        del text[0:3]
        doc["map"]["key"] = doc.client_id
    merged: Doc[Any] = Doc()
    for doc in docs:
        merged.apply_update(doc.get_update())
    data = merged.get_update()
    found, yields = whole(outline(data))
    read = read_update(data)
    assert sum(count for count, _ in found.structs.values()) == sum(section.count for section in read.sections)
    assert sum(length for _, length in found.structs.values()) == sum(s.end - s.clock for s in read.sections)
    assert found.clients == len(docs) and len(found.shares) == MAX_CLIENTS
    assert all(share.start == 0 and share.end == merged_clock(read, share.client) for share in found.shares)
    assert set(found.roots) == {"text", "map"} and len(found.text) == MAX_TEXT
    merged["text"] = shown = Text()
    left = len(str(shown).encode("utf-16-le")) // 2 + 1  # and the one value of the map
    assert found.deleted == sum(length for _, length in found.structs.values()) - left > 0
    assert found.deleting > 1 and found.ranges >= found.deleting and yields > 2


def merged_clock(read: Any, client: int) -> int:
    return max(section.end for section in read.sections if section.client == client)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 20, b"\x00\x00\x00"])
def test_what_is_no_update_has_no_outline(data: bytes) -> None:
    with pytest.raises(UpdateError):
        whole(outline(data))


def test_an_empty_update_holds_nothing() -> None:
    assert whole(outline(bytes(2)))[0] == Outline({}, [], 0, [], "", 0, 0, 0)
